//! Disks that fail under the real server: the power goes, writes and syncs fail, space runs out, bits flip. What was acknowledged is
//! there, what is wrong is told, and a restart goes on (support/faults.rs, support/faults/faults.c).

pub mod calls;
mod damage;
mod failures;
mod full;
mod journal;
mod model;
mod power;
