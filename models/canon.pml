/* canon.pml -- included by core.pml: what is reachable, and one representative for states that differ only
 * in names.
 *
 * reachable() is the question the model asks; readable() what anything at all, library included, can still
 * read.  canon() clears the fields of objects that are not readable and relabels objects and threads (the two
 * slots of a thread too) to the least of all labellings.  Every variable of core.pml that names an object or
 * a thread must be in serialise() and restore(), or canon() would make up states that do not exist. */
c_code {
#define OBJ_MASK ((1 << (NOBJ + 1)) - 2)
static int reach_from(int r)
{
    int previous, i;
    do {
        previous = r;
        for (i = 0; i <= NOBJ; i++)
            if (r & (1 << i)) {
                r |= 1 << now.field[i];
#ifdef HANDLES  /* weak_new finds it */
                r |= 1 << now.handle[i];
#endif
            }
    } while (previous != r);
    return r & OBJ_MASK;
}
static int roots(void)
{
    int r = 1, i;
    for (i = 0; i < NM * NSL; i++) r |= 1 << now.slot[i];
#ifdef REGS
    for (i = 0; i < NM; i++)
        if (now.pc[i] == 1) r |= 1 << now.value[i] | 1 << now.to[i];
#endif
#ifdef HANDLES  /* a new reference, not installed yet */
    for (i = 0; i < NM; i++)
        if (now.pc[i] == 19) r |= 1 << now.value[i];
#endif
#ifdef TSO
    for (i = 0; i < NM * DEPTH; i++)
        if (now.buffer[i] && now.buffer[i] != 255) r |= 1 << ((now.buffer[i] - 1) & 7);
#endif
#ifdef FINAL    /* a finalizer gets its object, and all that leads to */
    r |= now.ready;
    for (i = 1; i <= NOBJ; i++)
        if (now.final & (1 << i)) r |= 1 << now.field[i];
#endif
    return r;
}
/* what the program can reach */
static int reachable(void) { return reach_from(roots()); }
/* what anything, library and collector included, can still read */
static int readable(void)
{
    int r = roots(), i;
    for (i = 0; i < NM; i++) {
        r |= 1 << now.to[i] | 1 << now.value[i] | now.grey[i];
#ifdef TSO
        r |= now.handed[i];
#endif
    }
#ifdef TSO
    for (i = 0; i < NM * DEPTH; i++)
        if (now.buffer[i] && now.buffer[i] != 255) r |= 1 << ((now.buffer[i] - 1) >> 3);
#endif
#ifdef WEAK
    for (i = 0; i < CELLS; i++) r |= now.cells[i];
#endif
#ifdef FINAL
    r |= now.final;
#endif
    return reach_from(r | now.queue | now.copies | 1 << now.object | 1 << now.child | 1 << now.gr);
}
static int objects(int m, const int *p)
{
    int r = m & 1, i;
    for (i = 1; i <= NOBJ; i++) if (m & (1 << i)) r |= 1 << p[i];
    return r;
}
static int threads(int m, const int *p)
{
    int r = 0, i;
    for (i = 0; i < NM; i++) if (m & (1 << i)) r |= 1 << p[i];
    return r;
}
#ifdef TSO
static int entry(int e, const int *p)
{
    if (!e || e == 255) return e;
    e--;
    return 1 + (p[e >> 3] << 3) + p[e & 7];
}
#endif
static unsigned char best[64], candidate[64];
/* the state under object labelling po and thread labelling pt */
static int serialise(unsigned char *b, const int *po, const int *pt)
{
    int n = 0, i, j, it[NM], io[NOBJ + 1];
    for (i = 0; i < NM; i++) it[pt[i]] = i;
    for (i = 0; i <= NOBJ; i++) io[po[i]] = i;
    b[n++] = objects(now.live, po); b[n++] = objects(now.mark, po);
    for (i = 0; i <= NOBJ; i++) b[n++] = po[now.field[io[i]]];
    for (i = 0; i < NM; i++) {
        int t = it[i], m = n;
        for (j = 0; j < NSL; j++) b[n++] = po[now.slot[t * NSL + j]];
        if (NSL == 2 && b[m] < b[m + 1]) { unsigned char z = b[m]; b[m] = b[m + 1]; b[m + 1] = z; }
        b[n++] = objects(now.grey[t], po); b[n++] = now.pc[t];
        b[n++] = po[now.to[t]]; b[n++] = po[now.value[t]];
#ifdef TSO
        for (j = 0; j < DEPTH; j++) b[n++] = entry(now.buffer[t * DEPTH + j], po);
        b[n++] = objects(now.handed[t], po);
#endif
    }
    b[n++] = objects(now.queue, po); b[n++] = objects(now.copies, po); b[n++] = objects(now.unborn, po);
    b[n++] = threads(now.black, pt); b[n++] = threads(now.seen, pt); b[n++] = threads(now.owes, pt);
    b[n++] = threads(now.busy, pt); b[n++] = threads(now.held, pt); b[n++] = threads(now.fencing, pt);
    b[n++] = po[now.object]; b[n++] = po[now.child]; b[n++] = po[now.gr];
#ifdef TSO
    b[n++] = threads(now.answering, pt);
#endif
#ifdef ATTACH
    b[n++] = threads(now.attached, pt);
#endif
#ifdef GHOST
    b[n++] = objects(now.garbage, po);
#endif
#ifdef WEAK
    for (i = 0; i < CELLS; i++) b[n++] = objects(now.cells[i], po);
    b[n++] = objects(now.dead, po);
#endif
#ifdef HANDLES
    for (i = 0; i <= NOBJ; i++) b[n++] = po[now.handle[io[i]]];
#endif
#ifdef FINAL
    b[n++] = objects(now.final, po); b[n++] = objects(now.ready, po);
#endif
#if defined(FINAL) || defined(HANDLES)
    b[n++] = objects(now.todo, po);
#endif
#ifdef FOREIGN
    b[n++] = objects(now.foreign, po);
    b[n++] = threads(now.numbers, pt);
#endif
    return n;
}
static void restore(const unsigned char *b)
{
    int n = 0, i, j;
    now.live = b[n++]; now.mark = b[n++];
    for (i = 0; i <= NOBJ; i++) now.field[i] = b[n++];
    for (i = 0; i < NM; i++) {
        for (j = 0; j < NSL; j++) now.slot[i * NSL + j] = b[n++];
        now.grey[i] = b[n++]; now.pc[i] = b[n++]; now.to[i] = b[n++]; now.value[i] = b[n++];
#ifdef TSO
        for (j = 0; j < DEPTH; j++) now.buffer[i * DEPTH + j] = b[n++];
        now.handed[i] = b[n++];
#endif
    }
    now.queue = b[n++]; now.copies = b[n++]; now.unborn = b[n++];
    now.black = b[n++]; now.seen = b[n++]; now.owes = b[n++];
    now.busy = b[n++]; now.held = b[n++]; now.fencing = b[n++];
    now.object = b[n++]; now.child = b[n++]; now.gr = b[n++];
#ifdef TSO
    now.answering = b[n++];
#endif
#ifdef ATTACH
    now.attached = b[n++];
#endif
#ifdef GHOST
    now.garbage = b[n++];
#endif
#ifdef WEAK
    for (i = 0; i < CELLS; i++) now.cells[i] = b[n++];
    now.dead = b[n++];
#endif
#ifdef HANDLES
    for (i = 0; i <= NOBJ; i++) now.handle[i] = b[n++];
#endif
#ifdef FINAL
    now.final = b[n++]; now.ready = b[n++];
#endif
#if defined(FINAL) || defined(HANDLES)
    now.todo = b[n++];
#endif
#ifdef FOREIGN
    now.foreign = b[n++];
    now.numbers = b[n++];
#endif
}
static int labellings[6][8], n_labellings, orders[6][8], n_orders;
static void permute(int *p, int n, int low, int k, int of_objects)
{
    int i, j, used;
    if (k == n) {
        int *to = of_objects ? labellings[n_labellings++] : orders[n_orders++];
        for (i = low; i < n; i++) to[i] = p[i];
        return;
    }
    for (i = low; i < n; i++) {
        for (used = 0, j = low; j < k; j++) if (p[j] == i) used = 1;
        if (!used) { p[k] = i; permute(p, n, low, k + 1, of_objects); }
    }
}
static void canon(void)
{
    int i, j, n, first = 1, p[8];
    if (!n_labellings) { permute(p, NOBJ + 1, 1, 1, 1); permute(p, NM, 0, 0, 0); }
#ifndef STALE   /* a stale word can find an object that nothing else can */
    j = readable() | 1;
    for (i = 1; i <= NOBJ; i++) if (!(j & (1 << i))) now.field[i] = 0;
#endif
    for (i = 0; i < n_labellings; i++)
        for (j = 0; j < n_orders; j++) {
            n = serialise(candidate, labellings[i], orders[j]);
            if (first || memcmp(candidate, best, n) < 0) { memcpy(best, candidate, n); first = 0; }
        }
    restore(best);
}
};
