//! Estimates of the heap memory of decoded values, which bounds near caches. They are on the high side: a near cache may keep
//! less than it could, but never much more than it should.

/// The reference counts of an `Arc`, in bytes.
pub(crate) const REFERENCE_COUNTS: usize = 2 * size_of::<usize>();

/// The size of one allocation, as common allocators round it: with a header of 8 bytes, in steps of 16, at least 32.
pub(crate) const fn allocation(bytes: usize) -> usize {
    const HEADER: usize = 8;
    const STEP: usize = 16;
    const LEAST: usize = 32;
    let rounded = (bytes + HEADER).next_multiple_of(STEP);
    if rounded < LEAST { LEAST } else { rounded }
}

/// The heap memory of a value that owns a copy of its text.
pub(crate) fn of_bytes(text: &[u8]) -> usize {
    if text.is_empty() { 0 } else { allocation(text.len()) }
}

/// The heap memory of a value decoded from JSON text. Each string is an allocation, and lists and maps have spare room.
#[cfg(feature = "json")]
pub(crate) fn of_json(text: &[u8]) -> usize {
    const HALF_A_STRING: usize = 32;
    const ELEMENT: usize = 24;
    let structure: usize = text
        .iter()
        .map(|byte| match byte {
            b'"' => HALF_A_STRING,
            b',' | b':' | b'[' | b'{' => ELEMENT,
            _ => 0,
        })
        .sum();
    of_bytes(text) + structure
}

/// The heap memory of a `serde_json::Value` with this text. A map has nodes with room for 11 entries, and at least 5 in each but the
/// first.
#[cfg(feature = "json")]
pub(crate) fn of_json_value(text: &[u8]) -> usize {
    const HALF_A_STRING: usize = 32;
    const ENTRY: usize = size_of::<String>() + size_of::<serde_json::Value>();
    const NODE: usize = allocation(11 * ENTRY + 16);
    const LIST: usize = allocation(4 * size_of::<serde_json::Value>());
    let structure = text.iter().map(|byte| match byte {
        b'"' => HALF_A_STRING,
        b'{' => NODE,
        b'[' => LIST,
        b',' => NODE / 5,
        _ => 0,
    });
    of_bytes(text) + structure.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_is_rounded_as_allocators_do() {
        for (bytes, takes) in [(1, 32), (24, 32), (25, 48), (40, 48), (1_000, 1_008), (1_001, 1_024)] {
            assert_eq!(allocation(bytes), takes, "{bytes}");
        }
        assert_eq!(of_bytes(b""), 0);
    }

    #[cfg(feature = "json")]
    #[test]
    fn json_counts_for_what_it_becomes() {
        // Room for four strings of 24 bytes, and three allocations.
        assert!(of_json(br#"["a","b","c"]"#) >= 4 * 24 + 8 + 3 * 32);
        assert_eq!(of_json(b"[]"), 32 + 24);
    }

    #[cfg(feature = "json")]
    #[test]
    fn a_json_value_counts_for_its_nodes() {
        let keys = r#""a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"j":10,"k":11,"l":12"#;
        // A leaf has 632 bytes, an inner node 728, and each key is an allocation.
        assert!(of_json_value(br#"{"a":1}"#) >= 640 + 32);
        assert!(of_json_value(format!("{{{keys}}}").as_bytes()) >= 2 * 640 + 736 + 12 * 32);
        assert!(of_json_value(b"[1,2,3,4,5]") >= 8 * 32 + 8);
        assert!(of_json_value("x".repeat(100_000).as_bytes()) >= 100_000);
        let of_field = <Option<serde_json::Value> as crate::record::FieldValue>::heap;
        assert_eq!(of_field(keys.as_bytes()), of_json_value(keys.as_bytes()));
    }
}
