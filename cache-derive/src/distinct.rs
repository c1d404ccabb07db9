//! Checks that names differ: no two fields of a struct, and no two variants of an enum, share a stored name or an alias.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use syn::Ident;

use crate::attributes::Given;
use crate::mistakes::Mistakes;

/// A field or a variant.
pub(crate) struct Named<'a> {
    pub(crate) ident: &'a Ident,
    /// Its name in Redis.
    pub(crate) name: Cow<'a, str>,
    pub(crate) rename: Option<&'a Given<String>>,
    pub(crate) aliases: &'a [Given<String>],
}

/// `kind` is `field` or `variant`.
pub(crate) fn check(kind: &str, items: &[Named], mistakes: &mut Mistakes) {
    // The first item that has a name, and whether it is its own, not an alias.
    let mut taken: HashMap<&str, (&Ident, bool)> = HashMap::new();
    for Named { ident, name, rename, .. } in items {
        match taken.entry(name) {
            Entry::Vacant(free) => {
                free.insert((ident, true));
            }
            Entry::Occupied(first) => {
                let first = first.get().0;
                let message = format!("the {kind} `{first}` is already stored as `{name}`: choose another `rename`");
                match rename {
                    Some(rename) => mistakes.add(rename.argument(), message),
                    None => mistakes.add(ident, message),
                }
            }
        }
    }
    for Named { ident, aliases, .. } in items {
        for alias in *aliases {
            let Some(name) = alias.value() else { continue };
            let (first, is_own) = match taken.entry(name) {
                Entry::Vacant(free) => {
                    free.insert((ident, false));
                    continue;
                }
                Entry::Occupied(first) => *first.get(),
            };
            let message = match (first == *ident, is_own) {
                (true, true) => format!("`{name}` is the {kind}'s own name: remove this `alias`"),
                (true, false) => format!("the alias `{name}` is given twice: remove one"),
                (false, true) => format!("the {kind} `{first}` is stored as `{name}`: choose another `alias`"),
                (false, false) => {
                    format!("the {kind} `{first}` is already read from `{name}`: choose another `alias`")
                }
            };
            mistakes.add(alias.argument(), message);
        }
    }
}
