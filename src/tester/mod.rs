//! `room-client`: speaks the room protocol to any server, manually, by script, as a conformance test and as a load test.
//! Contains no GStreamer.

pub mod check;
pub mod hand;
pub mod load;
pub mod run;
pub mod script;
