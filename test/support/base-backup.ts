import { chmod, cp, lchown, mkdir, readdir, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import pg from 'pg'
import { z } from 'zod'

/** Folders whose contents belong to the running server: a restored one makes its own. */
const OWN_CONTENTS: ReadonlySet<string> = new Set(
  'pg_wal pg_replslot pg_dynshmem pg_notify pg_serial pg_snapshots pg_stat_tmp pg_subtrans'.split(' '),
)
const OWN_FILES: ReadonlySet<string> = new Set(['postmaster.pid', 'postmaster.opts'])
const PRIVATE = 0o700

/**
 * Backs up a running cluster by copying its files, as https://www.postgresql.org/docs/18/continuous-archiving.html says
 * under "Making a base backup using the low level API": what `pg_basebackup -X fetch` does over the network. The log
 * that was written meanwhile comes along, so that the copy is whole by itself.
 */
export async function copyRunningCluster(source: {
  readonly adminUrl: string
  readonly folder: string
  readonly target: string
  /** Goes on in the cluster while it is copied. */
  readonly meanwhile: () => Promise<void>
}): Promise<void> {
  const { adminUrl, folder, target, meanwhile } = source
  const admin = new pg.Client(adminUrl)
  await admin.connect()
  try {
    await admin.query(`select pg_backup_start('purser', fast => true)`)
    await mkdir(dirname(target), { recursive: true })
    await Promise.all([meanwhile(), copyFiles(folder, target)])
    const { rows } = await admin.query('select labelfile from pg_backup_stop(wait_for_archive => false)')
    const [{ labelfile }] = z.tuple([z.object({ labelfile: z.string() })]).parse(rows)
    await writeFile(join(target, 'backup_label'), labelfile)
    await cp(join(folder, 'pg_wal'), join(target, 'pg_wal'), { recursive: true })
  } finally {
    await admin.end()
  }
  await giveTo(target, await stat(folder))
}

async function copyFiles(folder: string, target: string): Promise<void> {
  await cp(folder, target, {
    recursive: true,
    filter: (path) =>
      !OWN_FILES.has(basename(path)) && !(dirname(path) !== folder && OWN_CONTENTS.has(topOf(path, folder))),
  })
}

function topOf(path: string, folder: string): string {
  return path.slice(folder.length + 1).split('/')[0] ?? ''
}

/** The server wants to own its files, and nobody else in its folder. */
async function giveTo(target: string, owner: { readonly uid: number; readonly gid: number }): Promise<void> {
  for (const path of ['', ...(await readdir(target, { recursive: true }))]) {
    await lchown(join(target, path), owner.uid, owner.gid)
  }
  await chmod(target, PRIVATE)
}
