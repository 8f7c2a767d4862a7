//! `room-client`: the room protocol to any server, by hand, by script, as a conformance test and as a
//! load. No GStreamer in it.

pub mod check;
pub mod hand;
pub mod load;
pub mod run;
pub mod script;
