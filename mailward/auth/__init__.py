"""Message authentication: RFC in, result out. Never a socket, a file, a clock or a log line."""
