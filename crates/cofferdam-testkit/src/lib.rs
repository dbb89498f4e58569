//! Test doubles: mock model server with faults, fixed clock, scripted parts; for tests only
