//! What the system says about this process. Zero where it says nothing.

use std::fs;

/// Figures of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Memory resident now, in bytes.
    pub resident_bytes: u64,
    /// Processor time since the start, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Open file descriptors.
    pub open_files: u64,
}

/// Clock ticks per second in `/proc/self/stat`: always 100 on Linux (`USER_HZ`).
const TICKS_PER_S: f64 = 100.0;

/// Reads `/proc/self`.
pub fn usage() -> Usage {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    Usage {
        resident_bytes: resident_bytes(&status),
        cpu_seconds: cpu_seconds(&stat),
        open_files: fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
    }
}

fn resident_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn cpu_seconds(stat: &str) -> f64 {
    // The command's name, in parentheses, may hold spaces; utime and stime are fields 14 and 15 of the line.
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0.0 };
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / TICKS_PER_S
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_writes() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t   12345 kB\nThreads: 1\n"), 12_345 * 1024);
        assert_eq!(cpu_seconds("1 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0"), 3.0);
        assert_eq!(resident_bytes(""), 0);
        assert_eq!(cpu_seconds("x"), 0.0);
        assert!(usage().resident_bytes > 0);
    }
}
