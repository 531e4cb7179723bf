//! modelguard
