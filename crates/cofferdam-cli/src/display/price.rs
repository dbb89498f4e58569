//! What tokens cost, as the person says: prices change too often to be built in.

use std::str::FromStr;

use cofferdam::core::Usage;

/// Prices for a million tokens, in a currency of the person's choice; written as `1.25:10`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Price {
    input: f64,
    output: f64,
}

impl Price {
    /// Returns what some tokens cost. Tokens from a cache count as any others: an upper bound.
    fn of(self, usage: Usage) -> f64 {
        (usage.input_tokens as f64 * self.input + usage.output_tokens as f64 * self.output) / 1e6
    }

    /// Writes tokens, and what they cost if that is known.
    pub(super) fn show(price: Option<Self>, usage: Usage) -> String {
        let tokens = usage.total_tokens();
        match price {
            Some(price) => format!("{tokens} tokens, cost {:.4}", price.of(usage)),
            None => format!("{tokens} tokens"),
        }
    }
}

impl FromStr for Price {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |part: &str| {
            part.trim().parse().ok().filter(|price: &f64| price.is_finite() && *price >= 0.0)
        };
        let (input, output) = text.split_once(':').unwrap_or((text, text));
        match (parse(input), parse(output)) {
            (Some(input), Some(output)) => Ok(Self { input, output }),
            _ => Err("write the prices of a million input and output tokens as `1.25:10`".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_tokens_cost() {
        let usage = Usage { input_tokens: 2_000_000, output_tokens: 100_000, ..Usage::default() };
        let price = "1.25:10".parse().unwrap();
        assert_eq!(Price::show(Some(price), usage), "2100000 tokens, cost 3.5000");
        assert_eq!(Price::show(None, usage), "2100000 tokens");
        assert!("a:1".parse::<Price>().is_err());
        assert!("-1".parse::<Price>().is_err());
    }
}
