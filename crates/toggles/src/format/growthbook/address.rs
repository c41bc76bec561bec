//! What an address says: variations forced by its query, and patterns of pages.

use std::borrow::Cow;

use regex::Regex;

/// The variation that the query of `url` asks for by `key`, if there are that many.
pub(crate) fn query_override(key: &str, url: &str, count: usize) -> Option<usize> {
    let query = url.split('?').nth(1)?.split('#').next()?;
    // The first pair of that name decides, even if it makes no sense.
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let value = pairs.find(|(name, _)| *name == key)?.1;
    leading_integer(value).filter(|index| *index < count)
}

/// `parseInt(text)`; `None` for what is negative or no number.
fn leading_integer(text: &str) -> Option<usize> {
    let text = text.trim_start();
    let (positive, text) = match text.strip_prefix('-') {
        Some(text) => (false, text),
        None => (true, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, text) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(text) => (16, text),
        None => (10, text),
    };
    let end = text.find(|one: char| !one.is_digit(radix)).unwrap_or(text.len());
    let number = usize::from_str_radix(text.get(..end)?, radix).ok()?;
    (positive || number == 0).then_some(number)
}

/// A pattern of pages.
#[derive(Debug)]
pub(super) struct UrlPattern {
    pub(super) include: bool,
    pub(super) target: Target,
}

#[derive(Debug)]
pub(super) enum Target {
    Simple(Box<str>),
    Regex(Regex),
    Never,
}

/// Whether the page at `url` is meant: no excluding pattern matches, and an including one does if there are any. No pattern means no page.
pub(super) fn targeted(url: &str, patterns: &[UrlPattern]) -> bool {
    let (mut any, mut included) = (patterns.is_empty(), false);
    let url = complete(url);
    for pattern in patterns {
        let matches = pattern.target.matches(&url);
        if pattern.include {
            any = true;
            included |= matches;
        } else if matches {
            return false;
        }
    }
    included || !any
}

impl Target {
    fn matches(&self, url: &str) -> bool {
        match self {
            Self::Never => false,
            Self::Regex(regex) => occurs(regex, url),
            Self::Simple(pattern) => simple(url, pattern),
        }
    }
}

/// Whether the pattern occurs in the address, or in what follows its origin.
pub(super) fn occurs(regex: &Regex, url: &str) -> bool {
    regex.is_match(url) || regex.is_match(after_origin(url))
}

/// The address with an origin and a path, as far as it has none.
fn complete(url: &str) -> Cow<'_, str> {
    let Some((_, rest)) = url.split_once("://") else {
        return Cow::Owned(format!("https://_/{}", url.strip_prefix('/').unwrap_or(url)));
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest.split_at_checked(end) {
        Some((_, path)) if !path.starts_with('/') => {
            let (origin, path) = url.split_at(url.len() - path.len());
            Cow::Owned(format!("{origin}/{path}"))
        }
        _ => Cow::Borrowed(url),
    }
}

fn after_origin(url: &str) -> &str {
    let Some((_, rest)) = url.split_once("://") else { return url };
    rest.find(['/', '?', '#']).and_then(|at| rest.get(at..)).unwrap_or_default()
}

/// Host, path, query and fragment of an address.
struct Parts<'u> {
    host: &'u str,
    path: &'u str,
    query: &'u str,
    fragment: &'u str,
}

fn parts(url: &str) -> Parts<'_> {
    let (url, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (url, query) = url.split_once('?').unwrap_or((url, ""));
    let head = url.split([':', '/']).next().unwrap_or_default();
    let rest = match url.split_once("://") {
        Some((_, rest)) => rest,
        // What starts with a name with a dot in it is a host; a path alone means any host.
        None if head.contains('.') => url,
        None => return Parts { host: "*", path: url, query, fragment },
    };
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    Parts { host, path, query, fragment }
}

fn simple(url: &str, pattern: &str) -> bool {
    let (have, want) = (parts(url), parts(pattern));
    let part = |have: &str, want: &str| wild(&have.to_lowercase(), &want.to_lowercase());
    let value = |name: &str| {
        let pairs = have.query.split('&');
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).find(|(own, _)| *own == name)
    };
    part(have.host, want.host)
        && part(have.path.trim_matches('/'), want.path.trim_matches('/'))
        && (want.fragment.is_empty() || part(have.fragment, want.fragment))
        && want.query.split('&').filter(|pair| !pair.is_empty()).all(|pair| {
            let (name, expected) = pair.split_once('=').unwrap_or((pair, ""));
            part(value(name).map_or("", |(_, value)| value), expected)
        })
}

/// Whether `text` is `pattern`, in which `*` stands for any text.
fn wild(text: &str, pattern: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.find(piece).and_then(|at| rest.get(at + piece.len()..)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}
