"""Translation at work on a host: tables, port forwards and virtual servers, and the outsides of networks."""
