//! CBOR as CloudWatch speaks it, to and from JSON. Times are numbers of seconds under keys that end in `Timestamp` or `Time`.

use serde_json::{Map, Number, Value};

/// The number that ends a map, list or text whose length was not said.
const BREAK: u8 = 0xff;

/// Reads a request.
pub(super) fn read(bytes: &[u8]) -> Value {
    let mut reader = Reader { bytes, at: 0 };
    reader.value()
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        self.at += 1;
        self.bytes.get(self.at - 1).copied().unwrap_or(BREAK)
    }

    fn number(&mut self, bytes: usize) -> u64 {
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// The number that belongs to an item; none, if its length is not said.
    fn argument(&mut self, info: u8) -> Option<u64> {
        match info {
            0..24 => Some(info.into()),
            24..28 => Some(self.number(1 << (info - 24))),
            _ => None,
        }
    }

    /// Whether there is another item in a map or list.
    fn goes_on(&mut self, read: u64, length: Option<u64>) -> bool {
        match length {
            Some(length) => read < length,
            None if self.bytes.get(self.at).is_none_or(|byte| *byte == BREAK) => {
                self.at += 1;
                false
            }
            None => true,
        }
    }

    fn text(&mut self, length: Option<u64>) -> String {
        let Some(length) = length else {
            let mut text = String::new();
            while self.goes_on(0, None) {
                text += self.value().as_str().unwrap_or_default();
            }
            return text;
        };
        let from = self.at.min(self.bytes.len());
        let to = (from + usize::try_from(length).unwrap_or(usize::MAX)).min(self.bytes.len());
        self.at = to;
        String::from_utf8_lossy(&self.bytes[from..to]).into_owned()
    }

    fn value(&mut self) -> Value {
        let first = self.byte();
        let (kind, info) = (first >> 5, first & 31);
        if kind == 7 {
            return match info {
                20 => false.into(),
                21 => true.into(),
                26 => f64::from(f32::from_bits(u32::try_from(self.number(4)).unwrap_or_default())).into(),
                27 => f64::from_bits(self.number(8)).into(),
                _ => Value::Null,
            };
        }
        let argument = self.argument(info);
        match kind {
            0 => argument.unwrap_or_default().into(),
            1 => (-1 - i64::try_from(argument.unwrap_or_default()).unwrap_or_default()).into(),
            2 | 3 => self.text(argument).into(),
            4 => {
                let mut items = Vec::new();
                while self.goes_on(items.len() as u64, argument) {
                    items.push(self.value());
                }
                items.into()
            }
            5 => {
                let (mut map, mut read) = (Map::new(), 0);
                while self.goes_on(read, argument) {
                    let key = self.value().as_str().unwrap_or_default().to_owned();
                    map.insert(key, self.value());
                    read += 1;
                }
                map.into()
            }
            // A tag says what the next item is.
            _ => self.value(),
        }
    }
}

/// Writes an answer.
pub(super) fn write(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_into(&mut bytes, value);
    bytes
}

fn head(bytes: &mut Vec<u8>, kind: u8, length: usize) {
    bytes.push(kind << 5 | 26);
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn write_number(bytes: &mut Vec<u8>, number: &Number) {
    bytes.push(0xfb);
    bytes.extend(number.as_f64().unwrap_or_default().to_be_bytes());
}

fn write_into(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => bytes.push(0xf6),
        Value::Bool(value) => bytes.push(if *value { 0xf5 } else { 0xf4 }),
        Value::Number(number) => write_number(bytes, number),
        Value::String(text) => {
            head(bytes, 3, text.len());
            bytes.extend(text.as_bytes());
        }
        Value::Array(items) => {
            head(bytes, 4, items.len());
            items.iter().for_each(|item| write_into(bytes, item));
        }
        Value::Object(map) => {
            head(bytes, 5, map.len());
            for (key, value) in map {
                head(bytes, 3, key.len());
                bytes.extend(key.as_bytes());
                if key.ends_with("Timestamp") || key.ends_with("Time") {
                    bytes.push(0xc1);
                }
                write_into(bytes, value);
            }
        }
    }
}
