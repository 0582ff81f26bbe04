//! The processor must have what the binary was compiled for (.cargo/config.toml). `is_x86_feature_detected!` is of no use here: it answers
//! from the compiler's settings for features that were switched on, so the kernel is asked.

/// What x86-64-v3 and PCLMULQDQ are called in /proc/cpuinfo.
const NEEDED: [&str; 11] =
    ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "pclmulqdq", "sse4_2", "popcnt"];

/// Says which features are missing. Where the kernel does not tell, the processor is taken to be good enough.
pub fn check() -> Result<(), String> {
    if !cfg!(all(target_arch = "x86_64", target_feature = "avx2")) {
        return Ok(());
    }
    std::fs::read_to_string("/proc/cpuinfo").map_or(Ok(()), |text| missing(&text))
}

fn missing(cpuinfo: &str) -> Result<(), String> {
    let Some((_, flags)) = cpuinfo.lines().find(|line| line.starts_with("flags")).and_then(|line| line.split_once(':'))
    else {
        return Ok(());
    };
    let has = |feature: &str| flags.split_whitespace().any(|flag| flag == feature);
    let missing: Vec<&str> = NEEDED.into_iter().filter(|feature| !has(feature)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "this processor lacks {}: the binary was compiled for x86-64-v3 (Haswell, 2013, and later); \
         compile it with another target-cpu in .cargo/config.toml",
        missing.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_features_are_named() {
        assert_eq!(missing(&format!("processor: 0\nflags\t\t: fpu {}\n", NEEDED.join(" "))), Ok(()));
        let message = missing("flags : fpu avx bmi1 bmi2 f16c fma abm movbe sse4_2 popcnt\n").unwrap_err();
        assert!(message.starts_with("this processor lacks avx2, pclmulqdq:"), "{message}");
        assert_eq!(missing("Features: neon\n"), Ok(()));
    }
}
