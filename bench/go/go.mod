module grey/bench

go 1.19
