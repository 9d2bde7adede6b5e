-- A process's file with keys for secrets may change while it runs: it says which one it encrypts with by now.
grant update (encrypts_with) on instance to purser_app;
