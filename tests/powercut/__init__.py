"""This file knows why a cut power line can be tested by recording and replaying, and what that cannot show.

    python -m tests.powercut --minutes N     the long form

A preloaded library (recorder.c) writes down every call with which the real agent code and the real SQLite change
files: opens, writes with their bytes, truncates, syncs, renames, unlinks. disk.py replays them into a disk that
keeps apart what was synced and what was not, and builds what a cut may leave of it. judging.py opens that with the
agent's own code. It is faithful because

- the code under test is untouched, and the calls are those that reach the kernel. At the end of each recording the
  replayed disk must be byte for byte the real folder, so no call was missed; a call that the recorder does not
  understand fails the test. Only SQLite's -shm, written through a mapping, is not seen: images hold rubbish for it;
- the disk is harsher than real ones: each unsynced call is lost or kept apart from all others, where a page cache
  writes whole pages and a journal keeps the order of names. That a file was synced does not keep its name.

A FUSE or device-mapper layer would see the same calls, but needs rights that a test has not everywhere, and one
mount for each of thousands of images.

What this cannot show: a disk that answers FLUSH and does not flush, bits that rot, a sector that is lost while its
neighbour is written (SQLite's "powersafe overwrite" is taken for granted: a torn write leaves each sector old or
new), and a move between two folders. `kill -9` is no power cut: the kernel keeps what the process wrote, so tests
with it pass also when nothing is ever synced.
"""
