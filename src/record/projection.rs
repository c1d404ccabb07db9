//! Some fields of a record, as [`get_fields`](crate::Cache::get_fields) reads them: [`Projection`].

use super::{Cacheable, Field, FieldError, RecordReader};

/// Fields of `T` that are read together: a tuple of up to twelve [`Field`]s, or a single one.
///
/// Never implement it by hand. Values of a loaded record are cloned, so the fields' types have to be `Clone`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no choice of fields of `{T}`",
    label = "not one of its fields, nor a tuple of up to twelve",
    note = "write `{T}::FIELDS.name`, or `({T}::FIELDS.name, {T}::FIELDS.stock)`"
)]
pub trait Projection<T: Cacheable>: Copy + Send + Sync + 'static {
    /// The values of the fields: a tuple of them, or a single one.
    type Values: Send + 'static;

    /// Adds the names to read the fields from.
    #[doc(hidden)]
    fn add_names(self, names: &mut Vec<&'static str>);

    #[doc(hidden)]
    fn decode(self, record: &mut RecordReader<'_>) -> Result<Self::Values, FieldError>;

    /// The values of the fields in a record.
    #[doc(hidden)]
    fn of(self, record: &T) -> Self::Values;
}

#[diagnostic::do_not_recommend]
impl<T: Cacheable, V: Clone + Send + 'static> Projection<T> for Field<T, V> {
    type Values = V;

    fn add_names(self, names: &mut Vec<&'static str>) {
        self.codec.add_names(names);
    }

    fn decode(self, record: &mut RecordReader<'_>) -> Result<V, FieldError> {
        record.read(&self.codec)
    }

    fn of(self, record: &T) -> V {
        (self.of)(record).clone()
    }
}

macro_rules! tuples {
    ($($field:ident)*) => {
        tuples!(@ $($field)*);
    };
    (@ $first:ident $($field:ident)*) => {
        #[diagnostic::do_not_recommend]
        #[allow(non_snake_case)]
        impl<T: Cacheable, $first: Projection<T>, $($field: Projection<T>),*> Projection<T> for ($first, $($field,)*) {
            type Values = ($first::Values, $($field::Values,)*);

            fn add_names(self, names: &mut Vec<&'static str>) {
                let ($first, $($field,)*) = self;
                $first.add_names(names);
                $($field.add_names(names);)*
            }

            fn decode(self, record: &mut RecordReader<'_>) -> Result<Self::Values, FieldError> {
                let ($first, $($field,)*) = self;
                Ok(($first.decode(record)?, $($field.decode(record)?,)*))
            }

            fn of(self, record: &T) -> Self::Values {
                let ($first, $($field,)*) = self;
                ($first.of(record), $($field.of(record),)*)
            }
        }

        tuples!(@ $($field)*);
    };
    (@) => {};
}

tuples!(A B C D E F G H I J K L);
