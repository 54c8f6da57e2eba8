//! The agent before a real Prometheus: its metrics, the dashboard's queries and the rules, on data of real traffic.

mod access;
mod dashboard;
mod rules;
mod scrape;
