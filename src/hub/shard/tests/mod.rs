//! Shards with a simulated engine, on virtual time.

mod cases;
mod claims;
mod pauses;
mod random;
mod scripts;
mod world;

use super::*;
use crate::hub::{Command, Measure, Reason};
use world::World;
