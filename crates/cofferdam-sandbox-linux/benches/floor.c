/* The floor: what the kernel alone takes for a sandbox, a program in it, and its end.
 *
 * One process without threads does in C, with nothing around it, what a sealed sandbox cannot do without: a cgroup, a
 * `clone3` into all namespaces, a root on an in-memory file system with an overlay and a read-only `/usr`, `/proc`,
 * `pivot_root`, Landlock, a system call filter, `execve` of `true`, and taking all of it down again. It has no plan, no
 * guest, no protocol and no report, so nothing that does the same work can be faster.
 *
 *     floor [CGROUP-DIRECTORY]
 *
 * does one round for each line of its standard input, so that others can take turns with it, and prints the time of the
 * round in nanoseconds on a line. The cgroup is made below a directory of a version 2 hierarchy and left out if none is
 * given.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char base[64];

static void must(long result, const char *what) {
    if (result < 0) {
        fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
        _exit(1);
    }
}

static void put(const char *path, const char *text) {
    int file = open(path, O_WRONLY | O_CLOEXEC);
    must(file, path);
    must(write(file, text, strlen(text)), path);
    close(file);
}

/* Returns the path of a name below the directory of this run; the next four calls leave it as it is. */
static const char *at(const char *name) {
    static char paths[4][128];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", base, name);
    return path;
}

static void own_root(void) {
    char options[512];
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private mounts");
    must(mount("tmpfs", at("place"), "tmpfs", MS_NOSUID | MS_NODEV, "size=64m"), "tmpfs");
    must(mkdir(at("place/upper"), 0755), "upper");
    must(mkdir(at("place/work"), 0755), "work");
    must(mkdir(at("place/root"), 0755), "root");
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s,userxattr", at("lower"),
             at("place/upper"), at("place/work"));
    must(mount("overlay", at("place/root"), "overlay", MS_NOSUID | MS_NODEV, options), "overlay");
    must(mount("/usr", at("place/root/usr"), NULL, MS_BIND | MS_REC, NULL), "bind /usr");
    must(mount(NULL, at("place/root/usr"), NULL,
               MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL),
         "read-only /usr");
    must(mount("proc", at("place/root/proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "proc");
    must(chdir(at("place/root")), "enter the root");
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "detach the old root");
    must(chdir("/"), "enter /");
}

static void landlock(void) {
    struct landlock_ruleset_attr rules = {.handled_access_fs = 0x1fff};
    struct landlock_path_beneath_attr beneath = {.allowed_access = 0x1fff};
    int set = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof rules.handled_access_fs, 0);
    must(set, "Landlock rules");
    beneath.parent_fd = open("/", O_PATH | O_CLOEXEC);
    must(syscall(SYS_landlock_add_rule, set, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0), "Landlock rule");
    must(syscall(SYS_landlock_restrict_self, set, 0), "Landlock");
}

static void filter(void) {
    static const int refused[] = {
        SYS_ptrace,      SYS_mount,  SYS_umount2,         SYS_pivot_root,  SYS_setns,  SYS_unshare, SYS_bpf,
        SYS_keyctl,      SYS_reboot, SYS_perf_event_open, SYS_userfaultfd, SYS_swapon, SYS_swapoff,
        SYS_init_module,
    };
    enum { COUNT = sizeof refused / sizeof refused[0] };
    struct sock_filter program[2 * COUNT + 2];
    size_t length = 0;
    program[length++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < COUNT; i++) {
        program[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused[i], 0, 1);
        program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    }
    program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog whole = {(unsigned short)length, program};
    must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &whole), "seccomp");
}

static void inside(const char *user_map, const char *group_map) {
    char *arguments[] = {"true", NULL}, *environment[] = {NULL};
    put("/proc/self/setgroups", "deny");
    put("/proc/self/uid_map", user_map);
    put("/proc/self/gid_map", group_map);
    own_root();
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    landlock();
    filter();
    execve("/usr/bin/true", arguments, environment);
    must(-1, "start true");
}

static void round_trip(const char *group_directory, const char *user_map, const char *group_map) {
    char group[256];
    struct clone_args clone = {
        .flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
                 CLONE_NEWCGROUP,
        .exit_signal = SIGCHLD,
    };
    if (group_directory) {
        snprintf(group, sizeof group, "%s/cofferdam-floor.%d", group_directory, getpid());
        must(mkdir(group, 0755), group);
        clone.cgroup = (unsigned long long)open(group, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
        clone.flags |= CLONE_INTO_CGROUP;
    }
    long child = syscall(SYS_clone3, &clone, sizeof clone);
    must(child, "clone3");
    if (child == 0) inside(user_map, group_map);
    int status;
    must(waitpid((pid_t)child, &status, 0), "wait");
    if (group_directory) {
        close((int)clone.cgroup);
        must(rmdir(group), "remove the cgroup");
    }
    if (status != 0) {
        fprintf(stderr, "floor: the program ended with status %d\n", status);
        exit(1);
    }
}

int main(int count, char **words) {
    static const char *const places[] = {"place", "lower", "lower/usr", "lower/proc"};
    char user_map[64], group_map[64], command[128], line[16];
    snprintf(user_map, sizeof user_map, "0 %d 1", getuid());
    snprintf(group_map, sizeof group_map, "0 %d 1", getgid());
    snprintf(base, sizeof base, "/tmp/cofferdam-floor.%d", getpid());
    must(mkdir(base, 0755), base);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) must(mkdir(at(places[i]), 0755), places[i]);
    must(symlink("usr/lib", at("lower/lib")), "link");
    must(symlink("usr/lib64", at("lower/lib64")), "link");
    while (fgets(line, sizeof line, stdin)) {
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        round_trip(count > 1 ? words[1] : NULL, user_map, group_map);
        clock_gettime(CLOCK_MONOTONIC, &to);
        printf("%lld\n", (to.tv_sec - from.tv_sec) * 1000000000LL + to.tv_nsec - from.tv_nsec);
        fflush(stdout);
    }
    snprintf(command, sizeof command, "rm -rf %s", base);
    return system(command) != 0;
}
