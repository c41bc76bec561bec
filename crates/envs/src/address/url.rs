//! The edge to `url::Url`, which also turns an internationalised host into its ASCII form.

use url::Url;

use super::{Address, AddressError};

impl TryFrom<&Url> for Address {
    type Error = AddressError;

    /// # Errors
    /// As reading the text would: a user name, a query and so on have no place in an address.
    fn try_from(url: &Url) -> Result<Self, AddressError> {
        url.as_str().parse()
    }
}

impl TryFrom<Url> for Address {
    type Error = AddressError;

    fn try_from(url: Url) -> Result<Self, AddressError> {
        Self::try_from(&url)
    }
}

impl Address {
    /// The address as a `url::Url`; `None` only if that crate refuses it, as it does a host whose `xn--` label is not punycode.
    pub fn to_url(&self) -> Option<Url> {
        Url::parse(&self.to_string()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internationalised_host_comes_in_through_url() {
        let url = Url::parse("https://bücher.example:8443/cool").unwrap();
        let address = Address::try_from(&url).unwrap();
        assert_eq!(address.to_string(), "https://xn--bcher-kva.example:8443/cool");
        assert_eq!(address.to_url().unwrap(), url);
        assert!(Address::try_from(Url::parse("https://a.example/?q").unwrap()).is_err());
        assert!(Address::try_from(Url::parse("file:///etc").unwrap()).is_err());
    }
}
