//! BuildKit's progress as it comes over the Engine API: base64 of a protobuf `StatusResponse`.
//!
//! Only the few fields that are shown are read, by hand, because a protobuf library and BuildKit's definitions would
//! double the crates that this backend needs. The definitions:
//! <https://github.com/moby/buildkit/blob/master/api/services/control/control.proto>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One message: what has changed since the last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Trace {
    pub(super) vertexes: Vec<Vertex>,
    pub(super) statuses: Vec<Status>,
    pub(super) logs: Vec<Log>,
}

/// A step of the build.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Vertex {
    pub(super) digest: String,
    pub(super) name: String,
    pub(super) cached: bool,
    pub(super) started: bool,
    pub(super) completed: bool,
    pub(super) error: String,
}

/// How far something within a step is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) id: String,
    pub(super) current: u64,
    pub(super) total: u64,
    pub(super) completed: bool,
}

/// Output of a step, not cut at line ends.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) vertex: String,
    pub(super) text: Vec<u8>,
}

/// Reads a message; none if it makes no sense.
pub(super) fn decode(text: &str) -> Option<Trace> {
    let bytes = STANDARD.decode(text).ok()?;
    let mut trace = Trace::default();
    for field in Fields(&bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => trace.vertexes.push(vertex(bytes)?),
            (2, Value::Bytes(bytes)) => trace.statuses.push(status(bytes)?),
            (3, Value::Bytes(bytes)) => trace.logs.push(log(bytes)?),
            _ => {}
        }
    }
    Some(trace)
}

fn vertex(bytes: &[u8]) -> Option<Vertex> {
    let mut vertex = Vertex::default();
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => vertex.digest = text(bytes),
            (3, Value::Bytes(bytes)) => vertex.name = text(bytes),
            (4, Value::Number(number)) => vertex.cached = number != 0,
            (5, Value::Bytes(_)) => vertex.started = true,
            (6, Value::Bytes(_)) => vertex.completed = true,
            (7, Value::Bytes(bytes)) => vertex.error = text(bytes),
            _ => {}
        }
    }
    Some(vertex)
}

fn status(bytes: &[u8]) -> Option<Status> {
    let mut status = Status::default();
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => status.id = text(bytes),
            (4, Value::Number(number)) => status.current = number,
            (5, Value::Number(number)) => status.total = number,
            (8, Value::Bytes(_)) => status.completed = true,
            _ => {}
        }
    }
    Some(status)
}

fn log(bytes: &[u8]) -> Option<Log> {
    let mut log = Log::default();
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => log.vertex = text(bytes),
            (4, Value::Bytes(bytes)) => log.text = bytes.to_vec(),
            _ => {}
        }
    }
    Some(log)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The fields of a protobuf message: number and value, none where the bytes make no sense.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A fixed-size number, which no field here is.
    Other,
}

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Value::Number(self.number()?),
            1 => self.bytes(8).map(|_| Value::Other)?,
            2 => {
                let count = self.number()?;
                Value::Bytes(self.bytes(usize::try_from(count).ok()?)?)
            }
            5 => self.bytes(4).map(|_| Value::Other)?,
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            // Nothing after it can be understood.
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERTEX: &str = "sha256:4a24978017f95f03e157d72a6e9183058a6a0c02aaa5df336af1b2a64305afc1";

    #[test]
    fn a_step_that_is_done_as_an_engine_said_it() {
        let trace = decode(
            "CtoBCkdzaGEyNTY6NGEyNDk3ODAxN2Y5NWYwM2UxNTdkNzJhNmU5MTgzMDU4YTZhMGMwMmFhYTVkZjMzNmFmMWIyYTY0MzA1YWZjMRJH\
             c2hhMjU2OjY5NjFiMjE0M2YwY2JiMTgwYWZmNTc2ZTk0MmM3NTEyNjI5NTViMzM2OGQ4MWRiOGNkYTQ4YjI5MDVmMmUxMTcaLFtzdGFn\
             ZS0xIDIvM10gUlVOIGVjaG8gaGVsbG8gMTsgZWNobyBlcnIgPiYyKgsInbSI2AYQyqS+DTILCJ20iNgGEMjCmm4=",
        )
        .unwrap();
        let vertex = Vertex {
            digest: VERTEX.to_owned(),
            name: "[stage-1 2/3] RUN echo hello 1; echo err >&2".to_owned(),
            cached: false,
            started: true,
            completed: true,
            error: String::new(),
        };
        assert_eq!(trace, Trace { vertexes: vec![vertex], ..Trace::default() });
    }

    #[test]
    fn output_as_an_engine_said_it() {
        let trace = decode(
            "GmIKR3NoYTI1Njo0YTI0OTc4MDE3Zjk1ZjAzZTE1N2Q3MmE2ZTkxODMwNThhNmEwYzAyYWFhNWRmMzM2YWYxYjJhNjQzMDVhZmMxEgsI\
             nbSI2AYQoY2SYhgBIghoZWxsbyAxChpeCkdzaGEyNTY6NGEyNDk3ODAxN2Y5NWYwM2UxNTdkNzJhNmU5MTgzMDU4YTZhMGMwMmFhYTVk\
             ZjMzNmFmMWIyYTY0MzA1YWZjMRILCJ20iNgGEMSNkmIYAiIEZXJyCg==",
        )
        .unwrap();
        let log = |text: &[u8]| Log { vertex: VERTEX.to_owned(), text: text.to_vec() };
        assert_eq!(trace, Trace { logs: vec![log(b"hello 1\n"), log(b"err\n")], ..Trace::default() });
    }

    #[test]
    fn amounts_and_unknown_fields() {
        // status { id: "x", current: 300, total: 70000, completed: {} }, then a fixed-size field 9 and one of 4 bytes.
        let bytes = [
            &[0x12, 14, 0x0a, 1, b'x', 0x20, 0xac, 0x02, 0x28, 0xf0, 0xa2, 0x04, 0x42, 0, 0x18, 7][..],
            &[0x49, 1, 2, 3, 4, 5, 6, 7, 8, 0x55, 1, 2, 3, 4],
        ]
        .concat();
        let trace = decode(&STANDARD.encode(bytes)).unwrap();
        let status = Status { id: "x".to_owned(), current: 300, total: 70_000, completed: true };
        assert_eq!(trace, Trace { statuses: vec![status], ..Trace::default() });
    }

    #[test]
    fn nonsense_is_none() {
        let long_number = [0xff_u8; 11];
        for bytes in [&[0x0a_u8, 5, 1][..], &[0x0a], &[0x0b], &long_number, &[0x0a, 2, 0x0a, 9], &[0x49, 1]] {
            assert_eq!(decode(&STANDARD.encode(bytes)), None, "{bytes:?}");
        }
        assert_eq!(decode("not base64!"), None);
        assert_eq!(decode(""), Some(Trace::default()));
    }
}
