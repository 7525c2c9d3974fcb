//! `Debug` of an error prints its `Display` text and its sources, because that is what a user sees when
//! `main` returns the error.

use std::error::Error;
use std::fmt;

macro_rules! readable {
    ($($error:ty),+ $(,)?) => {
        $(impl fmt::Debug for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                chain(self, f)
            }
        })+
    };
}

readable!(crate::CertificateError, crate::ConnectError);

fn chain(error: &dyn Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{error}")?;
    error.source().map_or(Ok(()), |source| {
        f.write_str(": ")?;
        chain(source, f)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_print_their_sentence_and_its_causes_by_debug() {
        let url = url::Url::parse("https://discord.com").expect("it is a URL");
        let error: Box<dyn Error> = crate::ConnectError::dial(&url, "the proxy is away").into();
        assert_eq!(format!("{error:?}"), "cannot open a byte stream to discord.com:443: the proxy is away");
    }
}
