//! Which image a command runs in: by digest, so that what was tested is what runs.

use std::{fmt, str::FromStr};

use flowline_core::{
    digest::Digest,
    error::{ErrorKind, Kinded},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An image, named by its digest: `registry/name@sha256:…`. A tag can be moved to other bytes at any time, so it has to be asked for:
/// [`Image::tagged`], written `tag!registry/name:tag`.
///
/// ```
/// use flowline_pipeline::exec::Image;
/// let digest = "a".repeat(64);
/// assert!(format!("registry.example/app@sha256:{digest}").parse::<Image>().is_ok());
/// let error = "registry.example/app:1.2".parse::<Image>().unwrap_err();
/// assert!(error.to_string().contains("names no digest"));
/// assert_eq!(Image::tagged("app:1.2").unwrap().to_string(), "tag!app:1.2");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Image {
    reference: String,
    tagged: bool,
}

/// Why text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It is no name of an image.
    #[error("`{0}` is no image: write `name@sha256:` and 64 lower-case hexadecimal digits")]
    Shape(String),
    /// It names a tag.
    #[error(
        "`{0}` names no digest, so it may be another image tomorrow: write `name@sha256:…`, or allow the tag with `tag!{0}`"
    )]
    Tag(String),
}

impl Kinded for ImageError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// Stands before a reference whose tag is allowed.
const TAG: &str = "tag!";

impl Image {
    /// An image by a tag, whatever it stands for when it is used.
    ///
    /// # Errors
    /// [`ImageError::Shape`] if it is no reference.
    pub fn tagged(reference: impl Into<String>) -> Result<Self, ImageError> {
        let reference = reference.into();
        if is_reference(&reference) {
            Ok(Self { reference, tagged: true })
        } else {
            Err(ImageError::Shape(reference))
        }
    }

    /// What the engine calls it.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Whether it is named by a digest.
    pub fn is_fixed(&self) -> bool {
        !self.tagged
    }
}

/// Whether the engine could read it; what it means is its business.
fn is_reference(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    text.len() <= 512
        && text.bytes().all(known)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
}

impl FromStr for Image {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        if let Some(reference) = text.strip_prefix(TAG) {
            return Self::tagged(reference);
        }
        if !is_reference(text) {
            return Err(ImageError::Shape(text.to_owned()));
        }
        match text.split_once('@') {
            None => Err(ImageError::Tag(text.to_owned())),
            Some((_, digest)) if digest.parse::<Digest>().is_ok() => {
                Ok(Self { reference: text.to_owned(), tagged: false })
            }
            Some(_) => Err(ImageError::Shape(text.to_owned())),
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tagged { TAG } else { "" })?;
        f.write_str(&self.reference)
    }
}

impl Serialize for Image {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_digest_or_an_allowed_tag_is_an_image() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for good in [format!("a@{digest}"), format!("host:5000/a/b@{digest}"), "tag!a:1".to_owned()] {
            assert_eq!(good.parse::<Image>().unwrap().to_string(), good);
        }
        for bad in ["", "a", "a:latest", "a@sha256:12", "tag!", "-v", "a b@c", &format!("@{digest}")] {
            assert!(bad.parse::<Image>().is_err(), "{bad}");
        }
        assert!("a:1".parse::<Image>().unwrap_err().to_string().ends_with("allow the tag with `tag!a:1`"));
    }
}
