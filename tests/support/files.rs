//! A file by HTTP, as a dataset's publisher offers it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;

/// The URL under which the file, as it is at the moment of asking, is found until the test ends.
pub fn offer(file: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    let url = format!("http://{}/datasets/{name}", listener.local_addr().unwrap());
    let file = file.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                line.clear();
            }
            let body = std::fs::read(&file).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    url
}
