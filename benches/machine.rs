//! What Linux says about processes and the machine: CPU time, memory, conditions of the run.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::Outcome;

/// Ticks per second of `/proc`: `USER_HZ`, 100 on every Linux that Rust targets.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds a process has used, user and kernel time, its ended threads included.
///
/// # Errors
/// The process is gone.
pub fn cpu_seconds(pid: u32) -> Outcome<f64> {
    // user and system
    times(&format!("/proc/{pid}/stat"), 11..13)
}

/// CPU seconds of this process and of the children that it waited for: the brokers that have ended.
///
/// # Errors
/// `/proc` is not there.
pub fn family_cpu_seconds() -> Outcome<f64> {
    times("/proc/self/stat", 11..15)
}

fn times(stat: &str, fields: Range<usize>) -> Outcome<f64> {
    let stat = fs::read_to_string(stat)?;
    // the name may hold spaces and brackets; what follows the last one is fields 3 and on
    let all: Vec<&str> = stat.rsplit_once(')').ok_or("no name in stat")?.1.split_whitespace().collect();
    let mut ticks = 0;
    for field in all.get(fields).ok_or("no times in stat")? {
        ticks += field.parse::<u64>()?;
    }
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// CPU seconds of this process.
///
/// # Errors
/// `/proc` is not there.
pub fn own_cpu_seconds() -> Outcome<f64> {
    cpu_seconds(std::process::id())
}

/// CPU seconds that the whole machine was not idle, time stolen by its host included.
///
/// # Errors
/// `/proc` is not there.
pub fn busy_seconds() -> Outcome<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().ok_or("no line in /proc/stat")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|text| text.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy: u64 =
        ticks.iter().take(8).enumerate().filter(|(at, _)| *at != 3 && *at != 4).map(|(_, value)| value).sum();
    Ok(busy as f64 / TICKS_PER_SECOND)
}

/// Resident memory in bytes: now (`VmRSS`) or the most since the start (`VmHWM`).
///
/// # Errors
/// The process is gone.
pub fn memory_bytes(pid: u32, field: &str) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such field in status")?;
    let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}

/// Bytes that a process has caused to be written to the device, less what was deleted before it got there.
///
/// # Errors
/// The process is gone, or belongs to somebody else.
pub fn written_bytes(pid: u32) -> Outcome<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let field = |name: &str| -> Outcome<u64> {
        let line = io.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such field in io")?;
        Ok(line.trim().parse()?)
    };
    Ok(field("write_bytes:")?.saturating_sub(field("cancelled_write_bytes:")?))
}

/// Open descriptors of a process.
///
/// # Errors
/// The process is gone, or belongs to somebody else.
pub fn descriptors(pid: u32) -> Outcome<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// What lies below a folder.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    /// Files.
    pub files: usize,
    /// Blocks that they have on the disk, in bytes; holes are none.
    pub bytes: u64,
}

/// Counts the files below a folder that may change meanwhile.
///
/// # Errors
/// What the file system says of the folder itself.
pub fn stored(folder: &Path) -> Outcome<Stored> {
    let mut sum = Stored::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            // a file may be gone since it was listed
            let Ok(entry) = entry else { continue };
            let Ok(about) = entry.metadata() else { continue };
            if about.is_dir() {
                folders.push(entry.path());
            } else {
                sum.files += 1;
                // the unit of `st_blocks` is 512 bytes whatever the file system's is
                sum.bytes += about.blocks() * 512;
            }
        }
    }
    Ok(sum)
}

/// Everything that is dirty goes to the disk, so that one cell does not pay for another.
///
/// # Errors
/// `sync` cannot be run.
pub fn flush_disks() -> Outcome<()> {
    Command::new("sync").status()?;
    Ok(())
}

/// First line of a command's output, or why there is none.
pub fn first_line(command: &str, args: &[&str]) -> String {
    match Command::new(command).args(args).output() {
        Ok(output) => {
            let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
            String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").trim().to_owned()
        }
        Err(_) => format!("unknown ({command} cannot be run)"),
    }
}

/// The processor, its cores and the memory.
pub fn hardware() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or("0 kB");
    let gib = kib.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or(0.0) / f64::from(1 << 20);
    format!("{}, {cores} cores, {gib:.0} GiB", model.trim_start_matches([' ', '\t', ':']))
}
