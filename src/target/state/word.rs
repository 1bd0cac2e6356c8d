//! Words for the variants of an enum: those of the state, of the command line and of `status --json`.

/// `as_str` and `FromStr` of an enum, from one list. A word that is none of them is an error: `an unknown <what>`.
macro_rules! words {
    ($ty:ident, $what:literal: $($variant:ident => $word:literal,)*) => {
        impl $ty {
            /// The word of the state, of the command line and of `status --json`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($ty::$variant => $word,)*
                }
            }
        }

        impl std::str::FromStr for $ty {
            type Err = crate::error::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok($ty::$variant),)*
                    _ => Err(crate::error::Error::new(
                        crate::error::Kind::Internal,
                        format!(concat!("the state holds an unknown ", $what, " {:?}"), text),
                    )),
                }
            }
        }
    };
}
pub(super) use words;
