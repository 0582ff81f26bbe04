//! The seed of a random test.

/// From `MILLPOND_SEED`, or the clock; always printed, so that a failure can be repeated.
#[allow(clippy::disallowed_methods, reason = "a new seed each time")]
pub(crate) fn seed(test: &str) -> u64 {
    let seed = match std::env::var("MILLPOND_SEED") {
        Ok(text) => text.parse().expect("MILLPOND_SEED is a whole number"),
        Err(_) => std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970").as_nanos() as u64 % 1_000_000_007,
    };
    println!("{test}: seed {seed} (repeat with MILLPOND_SEED={seed})");
    seed
}
