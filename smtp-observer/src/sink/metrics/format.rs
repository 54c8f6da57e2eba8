//! In which of its formats a client wants the metrics.

use prometheus::TEXT_FORMAT;

/// A format that metrics are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What answers a request with these values of `Accept` (RFC 9110, 12.5.1): OpenMetrics where it is named, in a version
    /// that is spoken here, and nothing says that text is liked better.
    pub fn accepted<'a>(accept: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut open_metrics, mut text) = (0.0_f32, 0.0_f32);
        for range in accept.into_iter().flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1.0_f32, "1.0.0");
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                let value = value.trim().trim_matches('"');
                match &*name.trim().to_ascii_lowercase() {
                    "q" => quality = value.parse().unwrap_or(0.0),
                    "version" => version = value,
                    _ => (),
                }
            }
            match &*kind {
                "application/openmetrics-text" if version == "1.0.0" => open_metrics = quality.max(open_metrics),
                "text/plain" => text = quality.max(text),
                _ => (),
            }
        }
        if open_metrics > 0.0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// What it is, for `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => TEXT_FORMAT,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        for (accept, format) in [
            // Prometheus 2.42 and 3.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("Application/OpenMetrics-Text", Format::OpenMetrics),
            ("text/plain; q=0.5, application/openmetrics-text; version=\"1.0.0\"; q=0.5", Format::OpenMetrics),
            // A version that is not spoken here, a refusal, a greater liking for text, a browser, curl, nonsense.
            ("application/openmetrics-text;version=0.0.1", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=much", Format::Text),
            ("application/openmetrics-text;q=0.1,text/plain", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
            ("*/*", Format::Text),
            (";;=,,", Format::Text),
        ] {
            assert_eq!(Format::accepted([accept]), format, "{accept}");
        }
        assert_eq!(Format::accepted([]), Format::Text);
        assert_eq!(Format::accepted(["text/plain;q=0.1", "application/openmetrics-text"]), Format::OpenMetrics);
    }
}
