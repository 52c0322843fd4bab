"""A port is stopped at a point of its work, by count of what it does to disk and network: see `support.events`."""

import time
def test_look(broken):
    b = broken
    for cold in (True, False):
      for name in ("port","align","load"):
        b.forget(cold=cold)
        b.proxy.seen.clear()
        t=time.time()
        ran, repo = b.do(name, tell=True)
        print(name, cold, ran.code, round(time.time()-t,2), len(ran.events), len(b.proxy.seen))
        print(ran.err)
        from collections import Counter
        print(Counter(e.split()[0] for e in ran.events))
        if cold:
            for s in b.proxy.seen: print("   ", s)
        else:
            for s in ran.events: print("   ", s.replace(str(b.root),""))
      t=time.time(); b.forget(cold=cold); print("forget", time.time()-t)
    b.forget()
    t=time.time()
    b.do("port")
    print(time.time()-t, sorted(p.name for p in b.root.iterdir()), list((b.root/"tmp").iterdir()))
    b.assert_no_litter()
