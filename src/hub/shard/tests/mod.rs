//! Shards with a simulated engine, on virtual time.

mod cases;
mod random;
mod scripts;
mod world;

use super::*;
use world::World;
