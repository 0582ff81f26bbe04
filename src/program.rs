//! The program's own pages in memory, and its end. The start runs code that is not run again (settings, tables, every function of SQL is made known),
//! and the kernel maps sixteen pages for each that is touched: 47 of 64 MiB of an idle server were that. They go back after
//! the start; what is run later is mapped again from the system's cache, where it stays.

use std::fs;
use std::io::{self, Write};
use std::ops::Range;

/// Unmaps the pages of the program that are as they are in its file. Each comes back when it is touched. Takes milliseconds.
#[allow(unsafe_code, reason = "std has no call for it")]
pub fn leave_start() {
    // where the kernel does not tell, the pages stay
    let Ok(program) = fs::read_link("/proc/self/exe") else { return };
    let Ok(smaps) = fs::read_to_string("/proc/self/smaps") else { return };
    for Range { start, end } in unchanged(&smaps, &program.to_string_lossy()) {
        // SAFETY: the range is mapped from the program's file, cannot be written and has no page of its own, so that each page is
        // read again as it was.
        unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
        }
    }
}

/// Ends the process at once. Threads that are still at work (a call to HDFS that does not come back) are cut off as by a crash, which
/// loses nothing; were the process's own end run, RocksDB's statics would go while such a thread lets go of the store and
/// closes it, and the process would abort after all was stopped in order.
#[allow(unsafe_code, reason = "std has no call for it")]
pub fn end(code: u8) -> ! {
    // a closed stdout is no reason to end otherwise
    let _ = (io::stdout().flush(), io::stderr().flush());
    // SAFETY: it takes a number and does not come back.
    unsafe { libc::_exit(code.into()) }
}

/// The mappings of a file that cannot be written and hold nothing but the file's own bytes. The loader's relocations are such that
/// cannot be written either, but they are in no file.
fn unchanged(smaps: &str, file: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        if let Some((range, of_file)) = mapping(line, file) {
            candidate = of_file.then_some(range);
        } else if let Some(anonymous) = line.strip_prefix("Anonymous:") {
            found.extend(candidate.take().filter(|_| anonymous.trim() == "0 kB"));
        }
    }
    found
}

/// The range of a mapping, and whether it is one of the file that cannot be written; nothing on other lines.
fn mapping(line: &str, file: &str) -> Option<(Range<usize>, bool)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let range = address(start)?..address(end)?;
    let rights = rest.get(..4)?;
    // rights, offset, device and inode, each followed by a space
    let path = rest.splitn(5, ' ').nth(4).unwrap_or_default().trim_start();
    Some((range, !rights.contains('w') && path == file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_the_file_goes() {
        let smaps = "\
            1000-3000 r--p 00000000 fe:00 77                         /a b/millpond\nRss: 4 kB\nAnonymous:             0 kB\n\
            3000-9000 r-xp 00002000 fe:00 77                         /a b/millpond\nAnonymous:             0 kB\n\
            9000-a000 r--p 00008000 fe:00 77                         /a b/millpond\nAnonymous:             4 kB\n\
            a000-b000 rw-p 00009000 fe:00 77                         /a b/millpond\nAnonymous:             0 kB\n\
            b000-c000 rw-p 00000000 00:00 0 \nAnonymous:             0 kB\n\
            c000-d000 r-xp 00000000 fe:00 78                         /a b/libc.so\nAnonymous:             0 kB\n";
        assert_eq!(unchanged(smaps, "/a b/millpond"), [0x1000..0x3000, 0x3000..0x9000]);
        assert!(unchanged("", "/a b/millpond").is_empty());
    }

    #[test]
    fn this_program_goes_on_without_its_pages() {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let program = fs::read_link("/proc/self/exe").unwrap();
        let code = leave_start as *const () as usize;
        assert!(unchanged(&smaps, &program.to_string_lossy()).iter().any(|range| range.contains(&code)));
        leave_start();
        assert!(unchanged(&smaps, "/none").is_empty());
    }
}
