//! The forms of the types of the standard library and of this crate that stand in events.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::{Describing, Field, Form, Shape, Variant};
use crate::clock::Timestamp;
use crate::event::Metadata;
use crate::id::{CausationId, CommandId, CorrelationId, DeliveryId, EventId};
use crate::stream::{Position, StreamId, Version};

/// Types of a form without parts.
macro_rules! plain {
    ($($form:ident: $($ty:ty),+;)+) => {
        $($(
            impl Shape for $ty {
                fn form(_: &mut Describing) -> Form {
                    Form::$form
                }
            }
        )+)+
    };
}

plain! {
    Bool: bool;
    I8: i8, num::NonZeroI8;
    I16: i16, num::NonZeroI16;
    I32: i32, num::NonZeroI32;
    I64: i64, isize, num::NonZeroI64, num::NonZeroIsize;
    I128: i128, num::NonZeroI128;
    U8: u8, num::NonZeroU8;
    U16: u16, num::NonZeroU16;
    U32: u32, num::NonZeroU32;
    U64: u64, usize, num::NonZeroU64, num::NonZeroUsize, Timestamp, Version, Position;
    U128: u128, num::NonZeroU128;
    F32: f32;
    F64: f64;
    Char: char;
    Text: str, String, Path, PathBuf, StreamId;
    Bytes: CStr, CString;
    Uuid: Uuid, EventId, CommandId, CorrelationId, CausationId, DeliveryId;
    Unit: ();
    Any: serde_json::Value;
}

/// Types whose form differs from format to format (text in JSON): their names stand for it.
macro_rules! opaque {
    ($($ty:ty: $name:literal;)+) => {
        $(
            impl Shape for $ty {
                fn form(_: &mut Describing) -> Form {
                    Form::Opaque($name.to_owned())
                }
            }
        )+
    };
}

opaque! {
    IpAddr: "IP address";
    Ipv4Addr: "IPv4 address";
    Ipv6Addr: "IPv6 address";
    SocketAddr: "socket address";
    SocketAddrV4: "IPv4 socket address";
    SocketAddrV6: "IPv6 socket address";
}

impl Shape for serde_json::Map<String, serde_json::Value> {
    fn form(_: &mut Describing) -> Form {
        Form::Map(Box::new(Form::Text), Box::new(Form::Any))
    }
}

impl Shape for Metadata {
    fn form(describing: &mut Describing) -> Form {
        Option::<BTreeMap<String, String>>::form(describing)
    }
}

impl Shape for Duration {
    fn form(_: &mut Describing) -> Form {
        Form::fields(vec![Field::new("secs", Form::U64), Field::new("nanos", Form::U32)])
    }
}

impl Shape for SystemTime {
    fn form(_: &mut Describing) -> Form {
        Form::fields(vec![
            Field::new("secs_since_epoch", Form::U64),
            Field::new("nanos_since_epoch", Form::U32),
        ])
    }
}

impl<T: Shape> Shape for Option<T> {
    fn form(describing: &mut Describing) -> Form {
        Form::Optional(Box::new(T::form(describing)))
    }
}

impl<T: Shape, E: Shape> Shape for Result<T, E> {
    fn form(describing: &mut Describing) -> Form {
        let variants = [("Ok", T::form(describing)), ("Err", E::form(describing))];
        Form::externally_tagged(variants.map(|(name, form)| Variant::new(name, Some(form))).into())
    }
}

impl<T: ?Sized + 'static> Shape for PhantomData<T> {
    fn form(_: &mut Describing) -> Form {
        Form::Unit
    }
}

/// Types that are written as what they hold.
macro_rules! transparent {
    ($($ty:ty),+) => {
        $(
            impl<T: Shape + ?Sized> Shape for $ty {
                fn form(describing: &mut Describing) -> Form {
                    T::form(describing)
                }
            }
        )+
    };
}

transparent!(&'static T, Box<T>, Rc<T>, Arc<T>);

impl<T: Shape + ToOwned + ?Sized> Shape for Cow<'static, T> {
    fn form(describing: &mut Describing) -> Form {
        T::form(describing)
    }
}

fn list<T: Shape>(describing: &mut Describing) -> Form {
    Form::List(Box::new(T::form(describing)))
}

macro_rules! list {
    ($($ty:ident<T $(, $more:ident)?>),+) => {
        $(
            impl<T: Shape $(, $more: 'static)?> Shape for $ty<T $(, $more)?> {
                fn form(describing: &mut Describing) -> Form {
                    list::<T>(describing)
                }
            }
        )+
    };
}

list!(Vec<T>, VecDeque<T>, LinkedList<T>, BinaryHeap<T>, BTreeSet<T>, HashSet<T, S>);

impl<T: Shape> Shape for [T] {
    fn form(describing: &mut Describing) -> Form {
        list::<T>(describing)
    }
}

impl<T: Shape, const LENGTH: usize> Shape for [T; LENGTH] {
    fn form(describing: &mut Describing) -> Form {
        Form::Array(Box::new(T::form(describing)), LENGTH)
    }
}

fn map<K: Shape, V: Shape>(describing: &mut Describing) -> Form {
    Form::Map(Box::new(K::form(describing)), Box::new(V::form(describing)))
}

impl<K: Shape, V: Shape> Shape for BTreeMap<K, V> {
    fn form(describing: &mut Describing) -> Form {
        map::<K, V>(describing)
    }
}

impl<K: Shape, V: Shape, S: 'static> Shape for HashMap<K, V, S> {
    fn form(describing: &mut Describing) -> Form {
        map::<K, V>(describing)
    }
}

macro_rules! tuple {
    ($first:ident $($rest:ident)*) => {
        impl<$first: Shape, $($rest: Shape),*> Shape for ($first, $($rest,)*) {
            fn form(describing: &mut Describing) -> Form {
                Form::Tuple(vec![$first::form(describing), $($rest::form(describing)),*])
            }
        }
        tuple!($($rest)*);
    };
    () => {};
}

tuple!(A B C D E F G H I J K L M N O P);
