//! `room-client`: speaks the HELLO protocol to any server, manually, by script, as a conformance test and as a load test.
//! Contains no GStreamer.

pub mod check;
pub mod interactive;
pub mod load;
pub mod run;
pub mod script;
