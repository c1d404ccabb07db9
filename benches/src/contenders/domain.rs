//! Records of fifty fields with the same texts: plain fields, and enums, newtypes and embedded structs.

use cache_aside::{Backend, BoxError, Cache, Cacheable, Embeddable, FieldValue};

use crate::Failure;
use crate::measure::{Contender, Operation};
use crate::records::{IDS, borrowed_id};

#[derive(Debug, Clone, Copy, FieldValue)]
#[cacheable(rename_all = "snake_case")]
enum Status {
    OnSale,
    #[cacheable(other)]
    Unknown,
}

#[derive(Debug, Clone, FieldValue)]
struct Cents(i64);

#[derive(Debug, Clone, FieldValue)]
struct Name(String);

/// A plain struct of these fields, one whose fields are embedded, and samples of both.
macro_rules! records {
    ($($part:ident: $name:ident $cents:ident $status:ident $stock:ident $note:ident)*) => {
        #[derive(Debug, Clone, Cacheable)]
        #[cacheable(namespace = "bench", ttl = "1h", not_found_ttl = "30m")]
        struct Plain {
            #[cacheable(id)]
            id: String,
            $($name: String, $cents: i64, $status: String, $stock: u32, $note: Option<String>,)*
        }

        #[derive(Debug, Clone, Embeddable)]
        struct Part {
            name: Name,
            cents: Cents,
            status: Status,
            stock: u32,
            note: Option<Name>,
        }

        #[derive(Debug, Clone, Cacheable)]
        #[cacheable(namespace = "bench", ttl = "1h", not_found_ttl = "30m")]
        struct Domain {
            #[cacheable(id)]
            id: String,
            $(#[cacheable(embed)] $part: Part,)*
        }

        impl Sample for Plain {
            fn sample(id: String) -> Self {
                $(let ($name, $note) = (NAME.to_owned(), Some(NOTE.to_owned()));)*
                Self { id, $($name, $cents: CENTS, $status: "on_sale".to_owned(), $stock: STOCK, $note,)* }
            }
        }

        impl Sample for Domain {
            fn sample(id: String) -> Self {
                let part = Part {
                    name: Name(NAME.to_owned()),
                    cents: Cents(CENTS),
                    status: Status::OnSale,
                    stock: STOCK,
                    note: Some(Name(NOTE.to_owned())),
                };
                Self { id, $($part: part.clone(),)* }
            }
        }
    };
}

const NAME: &str = "Sourdough Loaf";
const CENTS: i64 = 650;
const STOCK: u32 = 42;
const NOTE: &str = "baked this morning";

records! {
    p0: p0_name p0_cents p0_status p0_stock p0_note
    p1: p1_name p1_cents p1_status p1_stock p1_note
    p2: p2_name p2_cents p2_status p2_stock p2_note
    p3: p3_name p3_cents p3_status p3_stock p3_note
    p4: p4_name p4_cents p4_status p4_stock p4_note
    p5: p5_name p5_cents p5_status p5_stock p5_note
    p6: p6_name p6_cents p6_status p6_stock p6_note
    p7: p7_name p7_cents p7_status p7_stock p7_note
    p8: p8_name p8_cents p8_status p8_stock p8_note
    p9: p9_name p9_cents p9_status p9_stock p9_note
}

trait Sample: Cacheable<Id = String> + Clone {
    fn sample(id: String) -> Self;
}

pub(super) async fn hits(url: &str) -> Result<Vec<Contender>, Failure> {
    let backend = Backend::connect(url).await?;
    Ok(vec![
        Contender::new("cache-aside get, 50 plain fields", Get(filled::<Plain>(&backend).await?)),
        Contender::new("cache-aside get, 50 fields of domain types", Get(filled::<Domain>(&backend).await?)),
    ])
}

async fn filled<R: Sample>(backend: &Backend) -> Result<Cache<R>, Failure> {
    let cache = Cache::new(backend.clone());
    for at in 0..IDS {
        cache.refresh(borrowed_id(at), |id| async { Ok::<_, BoxError>(Some(R::sample(id))) }).await?;
    }
    Ok(cache)
}

#[derive(Clone)]
struct Get<R: Sample>(Cache<R>);

impl<R: Sample> Operation for Get<R> {
    async fn call(&mut self, at: usize) {
        let loader = |_| async { Err::<Option<R>, _>("a hit loads nothing") };
        std::hint::black_box(self.0.get(borrowed_id(at), loader).await.expect("a hit"));
    }
}
