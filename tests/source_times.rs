//! A second clean clone in the same place compiles only what changed: `.ci/run` gives sources the times at which their content was
//! first seen.

use crate::support::{Scratch, source};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

fn git(dir: &Path, args: &[&str]) {
    let identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"];
    let output = Command::new("git").current_dir(dir).args(identity).args(args).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

struct Clones {
    origin: PathBuf,
    clone: PathBuf,
    known: PathBuf,
}

impl Clones {
    /// The times of `one two.rs` and `other.rs` in a clean clone of the origin, in which `one two.rs` has this content.
    fn times(&self, content: &str) -> [SystemTime; 2] {
        self.clone_with(content);
        self.run();
        ["one two.rs", "other.rs"].map(|file| fs::metadata(self.clone.join(file)).unwrap().modified().unwrap())
    }

    fn clone_with(&self, content: &str) {
        fs::write(self.origin.join("one two.rs"), content).unwrap();
        git(&self.origin, &["add", "-A"]);
        git(&self.origin, &["commit", "--quiet", "--allow-empty", "--message", content]);
        let _ = fs::remove_dir_all(&self.clone);
        git(&self.origin, &["clone", "--quiet", ".", self.clone.to_str().unwrap()]);
    }

    fn run(&self) {
        let mut command = Command::new(self.clone.join("scripts/source-times"));
        assert!(command.arg(&self.known).stderr(Stdio::null()).status().unwrap().success());
    }

    /// Makes everything that is known ten minutes older, as if the last clone had been then.
    fn ten_minutes_later(&self) {
        let known = fs::read_to_string(&self.known).unwrap();
        let aged = known.lines().map(|line| {
            let [name, time, path] = line.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
            format!("{name} {} {path}\n", time.parse::<u64>().unwrap() - 600)
        });
        fs::write(&self.known, aged.collect::<String>()).unwrap();
    }
}

#[test]
fn content_keeps_the_time_at_which_the_last_clone_had_it() {
    let scratch = Scratch::new("source-times");
    let clones = Clones {
        origin: scratch.path("origin"),
        clone: scratch.path("clone"),
        known: scratch.path("target/source-times"),
    };
    fs::create_dir_all(clones.origin.join("scripts")).unwrap();
    fs::copy(source("../scripts/source-times"), clones.origin.join("scripts/source-times")).unwrap();
    fs::write(clones.origin.join("other.rs"), "the same").unwrap();
    git(&clones.origin, &["init", "--quiet"]);
    let begin = SystemTime::now() - Duration::from_secs(2);

    assert!(clones.times("a").iter().all(|time| *time >= begin), "nothing is known of the first clone");
    clones.ten_minutes_later();
    assert!(clones.times("a").iter().all(|time| *time < begin), "both are as they were");
    let [changed, same] = clones.times("b");
    assert!(changed >= begin && same < begin, "one of two changed");
    clones.ten_minutes_later();
    let [changed, same] = clones.times("a");
    assert!(changed >= begin && same < begin, "what is built is of b, so a is new again");

    clones.ten_minutes_later();
    clones.clone_with("a");
    fs::write(clones.clone.join("other.rs"), "edited").unwrap();
    clones.run();
    let other = fs::metadata(clones.clone.join("other.rs")).unwrap().modified().unwrap();
    assert!(other >= begin, "a tree that somebody works in is left alone");
}
