//! The same events stored in three versions, and read through no step, two typed ones, or two steps of JSON.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tidings::{Event, Header, Json, aggregate, projection, upcasts};

/// One way to read an event whose newest version is 3.
macro_rules! way {
    ($module:ident, $($steps:tt)*) => {
        pub(crate) mod $module {
            use super::*;

            /// Money came in.
            #[derive(Event, Serialize, Deserialize)]
            #[event(name = "account.deposited", version = 3)]
            pub(crate) struct Deposited {
                pub(crate) cents: i64,
                pub(crate) payer: String,
                pub(crate) currency: String,
                pub(crate) reference: Option<u64>,
            }

            $($steps)*

            /// An account.
            #[derive(Default)]
            pub(crate) struct Account;

            #[aggregate(category = "account", events = pub(crate) AccountEvent)]
            impl Account {
                #[apply]
                fn deposited(&mut self, _: &Deposited) {}
            }

            /// Balances by account.
            #[derive(Default)]
            pub(crate) struct Balances {
                pub(crate) of: HashMap<String, i64>,
            }

            #[projection(name = "balances", version = 1)]
            impl Balances {
                #[on]
                fn deposited(&mut self, event: &Deposited, header: &Header) {
                    let cents = event.cents + event.reference.unwrap_or_default() as i64;
                    let cents = cents + (event.payer.len() + event.currency.len()) as i64;
                    match self.of.get_mut(header.stream.id()) {
                        Some(balance) => *balance += cents,
                        None => {
                            self.of.insert(header.stream.id().to_owned(), cents);
                        }
                    }
                }
            }
        }
    };
}

/// As version 1 was stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct V1 {
    pub(crate) cents: i64,
    pub(crate) payer: String,
}

/// As version 2 was stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct V2 {
    cents: i64,
    payer: String,
    currency: String,
}

way! { typed,
    #[upcasts]
    impl Deposited {
        #[upcast(from = 1)]
        fn currency(old: V1) -> V2 {
            V2 { cents: old.cents, payer: old.payer, currency: "EUR".to_owned() }
        }

        #[upcast(from = 2)]
        fn reference(old: V2) -> Deposited {
            let V2 { cents, payer, currency } = old;
            Deposited { cents, payer, currency, reference: None }
        }
    }
}

way! { json,
    #[expect(clippy::indexing_slicing, reason = "all payloads are objects")]
    #[upcasts]
    impl Deposited {
        #[upcast(from = 1)]
        fn currency(mut old: Json) -> Json {
            old["currency"] = "EUR".into();
            old
        }

        #[upcast(from = 2)]
        fn reference(mut old: Json) -> Json {
            old["reference"] = Json::Null;
            old
        }
    }
}
