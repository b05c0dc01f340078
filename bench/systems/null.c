// A FUSE filesystem that stores nothing: names, sizes and attributes are in memory, data is thrown away and read as
// zeros. It is as fast as a FUSE filesystem can be made with little work, so it shows what the kernel and FUSE take.
// One thread: there is so little to do that waking another one costs more (on two processors, half of the speed).
#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FOREVER 86400.0
#define BUCKETS (1 << 16)
#define REQUEST_MAX (1 << 20)

// An inode with its one name; there are no hard links. The number of an inode is its address.
struct node {
    struct stat st;
    char *name;
    struct node *parent, *in_bucket;         // NULL parent: removed, or the root
    struct node *first, *last, *next, *prev; // entries of a directory, in the order of their places
    unsigned long place, places;
    unsigned long known, entries; // lookups of the kernel; names below
};

static struct node root, *buckets[BUCKETS];
static const char zeros[REQUEST_MAX];

static struct node *node_of(fuse_ino_t ino) { return ino == FUSE_ROOT_ID ? &root : (struct node *)ino; }

static struct node **bucket(struct node *parent, const char *name) {
    unsigned long hash = (unsigned long)parent >> 4;
    while (*name) hash = hash * 31 + (unsigned char)*name++;
    return &buckets[(hash ^ hash >> 17) % BUCKETS];
}

static struct node *find(struct node *parent, const char *name) {
    struct node *n = *bucket(parent, name);
    while (n && (n->parent != parent || strcmp(n->name, name))) n = n->in_bucket;
    return n;
}

static void touched(struct node *n) {
    clock_gettime(CLOCK_REALTIME, &n->st.st_mtim);
    n->st.st_ctim = n->st.st_mtim;
}

static void link_in(struct node *n, struct node *parent, const char *name) {
    struct node **b = bucket(parent, name);
    n->name = strdup(name);
    n->parent = parent;
    n->in_bucket = *b;
    *b = n;
    n->place = ++parent->places;
    n->next = NULL;
    n->prev = parent->last;
    *(parent->last ? &parent->last->next : &parent->first) = n;
    parent->last = n;
    parent->entries++;
    parent->st.st_nlink += S_ISDIR(n->st.st_mode) ? 1 : 0;
    touched(parent);
}

static void maybe_free(struct node *n) {
    if (n == &root || n->parent || n->known) return;
    free(n->name);
    free(n);
}

static void link_out(struct node *n) {
    struct node *parent = n->parent, **b = bucket(parent, n->name);
    while (*b != n) b = &(*b)->in_bucket;
    *b = n->in_bucket;
    *(n->prev ? &n->prev->next : &parent->first) = n->next;
    *(n->next ? &n->next->prev : &parent->last) = n->prev;
    parent->entries--;
    parent->st.st_nlink -= S_ISDIR(n->st.st_mode) ? 1 : 0;
    touched(parent);
    n->parent = NULL;
}

static void fill(struct node *n, struct fuse_entry_param *e) {
    memset(e, 0, sizeof *e);
    e->ino = n == &root ? FUSE_ROOT_ID : (fuse_ino_t)n;
    e->attr = n->st;
    e->attr.st_ino = e->ino;
    e->attr_timeout = e->entry_timeout = FOREVER;
    n->known++;
}

static void do_init(void *data, struct fuse_conn_info *conn) {
    (void)data;
    conn->max_write = conn->max_readahead = REQUEST_MAX;
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name) {
    struct fuse_entry_param e = {.entry_timeout = FOREVER};
    struct node *n = find(node_of(parent), name);
    if (n) fill(n, &e);
    fuse_reply_entry(req, &e);
}

static void forget(fuse_ino_t ino, uint64_t count) {
    node_of(ino)->known -= count;
    maybe_free(node_of(ino));
}

static void do_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count) {
    forget(ino, count);
    fuse_reply_none(req);
}

static void do_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *all) {
    for (size_t i = 0; i < count; i++) forget(all[i].ino, all[i].nlookup);
    fuse_reply_none(req);
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    (void)fi;
    struct stat st = node_of(ino)->st;
    st.st_ino = ino;
    fuse_reply_attr(req, &st, FOREVER);
}

static void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *to, int set, struct fuse_file_info *fi) {
    struct node *n = node_of(ino);
    if (set & FUSE_SET_ATTR_MODE) n->st.st_mode = (n->st.st_mode & S_IFMT) | (to->st_mode & 07777);
    if (set & FUSE_SET_ATTR_UID) n->st.st_uid = to->st_uid;
    if (set & FUSE_SET_ATTR_GID) n->st.st_gid = to->st_gid;
    if (set & FUSE_SET_ATTR_SIZE) {
        n->st.st_size = to->st_size;
        touched(n);
    }
    if (set & FUSE_SET_ATTR_ATIME) n->st.st_atim = to->st_atim;
    if (set & FUSE_SET_ATTR_MTIME) n->st.st_mtim = to->st_mtim;
    if (set & FUSE_SET_ATTR_ATIME_NOW) clock_gettime(CLOCK_REALTIME, &n->st.st_atim);
    if (set & FUSE_SET_ATTR_MTIME_NOW) clock_gettime(CLOCK_REALTIME, &n->st.st_mtim);
    do_getattr(req, ino, fi);
}

// 0, or the number of the error.
static int make(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_entry_param *e) {
    const struct fuse_ctx *who = fuse_req_ctx(req);
    struct node *n, *in = node_of(parent);
    int taken = find(in, name) != NULL;
    if (!taken) {
        n = calloc(1, sizeof *n);
        n->st.st_mode = mode;
        n->st.st_nlink = S_ISDIR(mode) ? 2 : 1;
        n->st.st_uid = who->uid;
        n->st.st_gid = who->gid;
        n->st.st_blksize = 4096;
        touched(n);
        n->st.st_atim = n->st.st_mtim;
        link_in(n, in, name);
        fill(n, e);
    }
    return taken ? EEXIST : 0;
}

static void do_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode) {
    struct fuse_entry_param e;
    int error = make(req, parent, name, S_IFDIR | mode, &e);
    error ? fuse_reply_err(req, error) : fuse_reply_entry(req, &e);
}

static void do_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi) {
    struct fuse_entry_param e;
    int error = make(req, parent, name, S_IFREG | (mode & 07777), &e);
    fi->keep_cache = 1;
    error ? fuse_reply_err(req, error) : fuse_reply_create(req, &e, fi);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    (void)ino;
    fi->keep_cache = 1;
    fuse_reply_open(req, fi);
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) {
    (void)fi;
    off_t left = node_of(ino)->st.st_size - off;
    if (left < 0) left = 0;
    if (size > (size_t)left) size = left;
    fuse_reply_buf(req, zeros, size < REQUEST_MAX ? size : REQUEST_MAX);
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
                     struct fuse_file_info *fi) {
    (void)data, (void)fi;
    struct node *n = node_of(ino);
    if (n->st.st_size < off + (off_t)size) n->st.st_size = off + size;
    n->st.st_blocks = (n->st.st_size + 511) / 512;
    touched(n);
    fuse_reply_write(req, size);
}

static void do_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    (void)ino, (void)fi;
    fuse_reply_err(req, 0);
}

static void do_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi) {
    (void)ino, (void)datasync, (void)fi;
    fuse_reply_err(req, 0);
}

static void drop(fuse_req_t req, fuse_ino_t parent, const char *name) {
    struct node *n = find(node_of(parent), name);
    int error = !n ? ENOENT : n->entries ? ENOTEMPTY : 0;
    if (!error) {
        link_out(n);
        n->st.st_nlink = 0;
        maybe_free(n);
    }
    fuse_reply_err(req, error);
}

static void do_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *as,
                      unsigned int flags) {
    struct node *n = find(node_of(parent), name), *old = find(node_of(to), as);
    int error = flags & ~1u ? EINVAL : !n ? ENOENT : old && flags ? EEXIST : old && old->entries ? ENOTEMPTY : 0;
    if (!error && n != old) {
        if (old) {
            link_out(old);
            old->st.st_nlink = 0;
            maybe_free(old);
        }
        link_out(n);
        free(n->name);
        link_in(n, node_of(to), as);
    }
    fuse_reply_err(req, error);
}

static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, int with_attributes) {
    char *answer = malloc(size);
    size_t used = 0;
    for (struct node *n = node_of(ino)->first; n; n = n->next) {
        struct fuse_entry_param e;
        size_t need;
        if (n->place <= (unsigned long)off) continue;
        fill(n, &e);
        if (with_attributes)
            need = fuse_add_direntry_plus(req, answer + used, size - used, n->name, &e, n->place);
        else
            need = fuse_add_direntry(req, answer + used, size - used, n->name, &e.attr, n->place);
        if (!with_attributes || need > size - used) n->known--;
        if (need > size - used) break;
        used += need;
    }
    fuse_reply_buf(req, answer, used);
    free(answer);
}

static void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) {
    (void)fi;
    list(req, ino, size, off, 0);
}

static void do_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) {
    (void)fi;
    list(req, ino, size, off, 1);
}

static const struct fuse_lowlevel_ops operations = {
    .init = do_init, .lookup = do_lookup, .forget = do_forget, .forget_multi = do_forget_multi,
    .getattr = do_getattr, .setattr = do_setattr, .mkdir = do_mkdir, .create = do_create, .open = do_open,
    .read = do_read, .write = do_write, .flush = do_release, .release = do_release, .fsync = do_fsync,
    .unlink = drop, .rmdir = drop, .rename = do_rename, .readdir = do_readdir, .readdirplus = do_readdirplus,
    .fsyncdir = do_fsync,
};

int main(int argc, char **argv) {
    struct fuse_args args = FUSE_ARGS_INIT(argc, argv);
    struct fuse_cmdline_opts options;
    int failed = 1;
    root.st.st_mode = S_IFDIR | 0755;
    root.st.st_nlink = 2;
    touched(&root);
    if (fuse_parse_cmdline(&args, &options) || !options.mountpoint) return 1;
    struct fuse_session *session = fuse_session_new(&args, &operations, sizeof operations, NULL);
    if (!session) return 1;
    if (!fuse_set_signal_handlers(session) && !fuse_session_mount(session, options.mountpoint)) {
        failed = fuse_session_loop(session) != 0;
        fuse_session_unmount(session);
    }
    fuse_session_destroy(session);
    return failed;
}
