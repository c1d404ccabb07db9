//! A struct with its type erased. Everything below the typed face is compiled once, in this crate: it handles the records of
//! all structs as a [`Record`], by the struct's [`Shape`].

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::{Cacheable, Changes, FieldError, Hash, IdParts, RecordReader, RecordWriter, Schema, heap};

/// A record with its type erased. Only its cache knows the type.
pub(crate) type Record = Arc<dyn Any + Send + Sync>;

/// The reference counts of an `Arc`, in bytes.
const REFERENCE_COUNTS: usize = 2 * size_of::<usize>();

/// How records of one struct are read, written and named.
pub(crate) struct Shape {
    pub(crate) schema: Schema,
    /// The size of the struct itself, in bytes, without the heap memory of its fields.
    size: usize,
    decode: fn(&mut RecordReader<'_>) -> Result<Record, FieldError>,
    encode: fn(&Record, &mut RecordWriter),
    write_id: fn(&Record, &mut dyn IdParts) -> fmt::Result,
}

impl Shape {
    pub(crate) const fn of<T: Cacheable>() -> &'static Self {
        const {
            &Self {
                schema: T::SCHEMA,
                size: size_of::<T>(),
                decode: |reader| Ok(Arc::new(T::decode(reader)?)),
                encode: |record, writer| borrow::<T>(record).encode(writer),
                write_id: |record, out| borrow::<T>(record).write_id(out),
            }
        }
    }

    /// Decodes a whole record.
    pub(crate) fn decode(&self, hash: &Hash) -> Result<Record, FieldError> {
        (self.decode)(&mut RecordReader::new(hash, self.schema.fields))
    }

    /// Like `decode`, with an estimate of the record's memory in bytes.
    pub(crate) fn decode_weighed(&self, hash: &Hash) -> Result<(Record, usize), FieldError> {
        let mut reader = RecordReader::new(hash, self.schema.fields).weighing();
        let record = (self.decode)(&mut reader)?;
        Ok((record, heap::allocation(self.size + REFERENCE_COUNTS) + reader.heap()))
    }

    /// The fields of a record by name. `None` for a field that its hash leaves out.
    pub(crate) fn fields_of(&self, record: &Record) -> Result<Changes, FieldError> {
        let mut writer = RecordWriter::default();
        (self.encode)(record, &mut writer);
        writer.finish()
    }

    pub(crate) fn write_id(&self, record: &Record, out: &mut dyn IdParts) -> fmt::Result {
        (self.write_id)(record, out)
    }
}

/// Restores the type of a record.
pub(crate) fn typed<T: Cacheable>(record: Record) -> Arc<T> {
    record.downcast().expect(ONE_TYPE)
}

/// Borrows a record with its type restored.
pub(crate) fn borrow<T: Cacheable>(record: &Record) -> &T {
    record.downcast_ref().expect(ONE_TYPE)
}

const ONE_TYPE: &str = "a cache takes records from its own struct's decoder and loaders alone";
