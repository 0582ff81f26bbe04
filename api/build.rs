//! Copies the third-party parts of the page (chart library, fonts, their licences) from `web/node_modules`, where
//! `make web` puts them, to the place the crate embeds them from. None of them is in the repository.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

/// What is embedded: path under `node_modules`, name in the output folder.
const PARTS: &[(&str, &str)] = &[
    ("echarts/dist/echarts.min.js", "echarts.min.js"),
    ("@fontsource-variable/ibm-plex-sans/files/ibm-plex-sans-latin-wght-normal.woff2", "sans.woff2"),
    ("@fontsource-variable/ibm-plex-sans/files/ibm-plex-sans-latin-ext-wght-normal.woff2", "sans-ext.woff2"),
    ("@fontsource/ibm-plex-mono/files/ibm-plex-mono-latin-400-normal.woff2", "mono.woff2"),
];

/// The licences that travel with them, under `node_modules`.
const LICENCES: &[&str] = &[
    "echarts/LICENSE",
    "echarts/NOTICE",
    "zrender/LICENSE",
    "tslib/LICENSE.txt",
    "@fontsource-variable/ibm-plex-sans/LICENSE",
    "@fontsource/ibm-plex-mono/LICENSE",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=web/package-lock.json");
    let modules = PathBuf::from("web/node_modules");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_else(|| fail("cargo did not set OUT_DIR")));
    for (from, to) in PARTS {
        fs::write(out.join(to), read(&modules.join(from))).unwrap_or_else(|e| fail(&format!("cannot write {to}: {e}")));
    }
    let mut licences = Vec::new();
    for from in LICENCES {
        licences.extend_from_slice(format!("==== {from} ====\n\n").as_bytes());
        licences.extend_from_slice(&read(&modules.join(from)));
        licences.extend_from_slice(b"\n\n");
    }
    fs::write(out.join("licenses.txt"), licences).unwrap_or_else(|e| fail(&format!("cannot write licenses.txt: {e}")));
}

fn read(path: &Path) -> Vec<u8> {
    println!("cargo::rerun-if-changed={}", path.display());
    fs::read(path).unwrap_or_else(|e| {
        fail(&format!(
            "api/{}: {e}: the page needs its chart library and fonts: run `make web` (it runs `npm ci` in api/web), then build again",
            path.display()
        ))
    })
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    process::exit(1)
}
