//! The record of events that `run` keeps: each event is a line of JSON, written before the event is
//! acknowledged.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use shardkeeper::{Delivery, Dispatch};

/// How many bytes are collected for one write. A larger event is written by itself.
const CHUNK_BYTES: usize = 1 << 20;

/// A file that is appended to, or standard output. Written events are in the operating system's cache: they
/// survive the end of this process, but not a crash of the machine.
pub(crate) struct Record {
    name: String,
    output: Box<dyn Write + Send>,
    lines: Vec<u8>,
}

impl Record {
    /// Opens the file to append to it, or creates it, readable only by its owner. `-` means standard output.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        if path == Path::new("-") {
            let name = "to standard output".to_owned();
            return Ok(Self { name, output: Box::new(io::stdout()), lines: Vec::new() });
        }
        let opened = append_to(path).and_then(|file| Ok((is_torn(path, &file)?, file)));
        let (torn, file) = opened.map_err(|error| format!("cannot open {}: {error}", path.display()))?;
        // A killed process may have left an incomplete line. It stays on a line of its own; its event is
        // delivered again.
        let lines = if torn { vec![b'\n'] } else { Vec::new() };
        Ok(Self { name: path.display().to_string(), output: Box::new(file), lines })
    }

    /// Writes all of the events. After an error some may be written, the last one in part.
    ///
    /// Blocks the thread: a write to the cache is as fast as memory, and the program has no other work.
    pub(crate) fn write(&mut self, events: &[Delivery]) -> Result<(), String> {
        for dispatch in events.iter().filter_map(|event| event.dispatch()) {
            line(dispatch, &mut self.lines);
            if self.lines.len() >= CHUNK_BYTES {
                self.flush()?;
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), String> {
        let written = self.output.write_all(&self.lines).and_then(|()| self.output.flush());
        written.map_err(|error| format!("cannot write {}: {error}", self.name))?;
        self.lines.clear();
        self.lines.shrink_to(CHUNK_BYTES);
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Whether the file's last line is incomplete.
fn is_torn(path: &Path, file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    let mut reader = File::open(path)?;
    reader.seek(SeekFrom::End(-1))?;
    reader.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

fn line(dispatch: &Dispatch, into: &mut Vec<u8>) {
    let (shard, sequence, replayed) = (dispatch.shard(), dispatch.sequence(), dispatch.is_replayed());
    let (name, may_repeat) = (serde_json::Value::from(dispatch.name()), dispatch.may_repeat());
    let head = format!(
        r#"{{"shard":{},"sequence":{sequence},"name":{name},"replayed":{replayed},"may_repeat":{may_repeat},"data":"#,
        shard.0
    );
    into.extend_from_slice(head.as_bytes());
    // In JSON, line feeds occur only between tokens.
    into.extend(dispatch.data().iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
    into.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_its_name_and_data() {
        let mut lines = Vec::new();
        line(&Dispatch::sample("TYPING_START", b"{\n\"id\": \"1\"}"), &mut lines);
        line(&Dispatch::sample("NEW \"THING\"", b"null"), &mut lines);
        let expected = r#"{"shard":0,"sequence":0,"name":"TYPING_START","replayed":false,"may_repeat":false,"data":{ "id": "1"}}
{"shard":0,"sequence":0,"name":"NEW \"THING\"","replayed":false,"may_repeat":false,"data":null}
"#;
        assert_eq!(String::from_utf8(lines).unwrap(), expected);
    }

    #[test]
    fn a_line_that_was_left_incomplete_stays_by_itself() {
        let path = std::env::temp_dir().join(format!("shardkeeperd-record-{}", std::process::id()));
        for (before, after) in [("", ""), ("{}\n", "{}\n"), ("{}\n{\"sha", "{}\n{\"sha\n")] {
            std::fs::write(&path, before).unwrap();
            Record::open(&path).unwrap().write(&[]).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        }
        std::fs::remove_file(path).unwrap();
    }
}
