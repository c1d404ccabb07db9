//! The mistakes in one input, collected so that all of them are reported together.

use std::fmt::Display;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Error, Result};

#[derive(Default)]
pub(crate) struct Mistakes(Option<Error>);

impl Mistakes {
    /// Adds a mistake that the compiler shows at these tokens.
    pub(crate) fn add(&mut self, tokens: impl ToTokens, message: impl Display) {
        self.add_error(Error::new_spanned(tokens, message));
    }

    pub(crate) fn add_error(&mut self, mistake: Error) {
        match &mut self.0 {
            Some(others) => others.combine(mistake),
            None => self.0 = Some(mistake),
        }
    }

    /// Takes the mistake out of a result.
    pub(crate) fn sift<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|mistake| self.add_error(mistake)).ok()
    }

    /// The code, or all mistakes with a stub in its place.
    pub(crate) fn or_code(self, code: impl FnOnce() -> TokenStream, stub: impl FnOnce() -> TokenStream) -> TokenStream {
        let Some(error) = self.0 else {
            return code();
        };
        let (error, stub) = (error.into_compile_error(), stub());
        quote!(#error #stub)
    }

    /// All mistakes in one error, if there were any.
    pub(crate) fn into_error(self) -> Option<Error> {
        self.0
    }
}
