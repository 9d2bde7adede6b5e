import { migrate } from '#db/migrate.ts'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { beforeAll, expect, test } from 'vitest'
import { createMigrated, PASSWORDS, useCluster, type TestCluster } from '../support/cluster.ts'
import { beBusy, expectLife } from '../support/drill.ts'
import { pgTool } from '../support/pg-tool.ts'
import { useScratchFolder } from '../support/scratch.ts'
import { createWorld } from '../support/world.ts'

const run = promisify(execFile)
const TIMEOUT_MS = 180_000

let pgDump: string
let pgRestore: string

beforeAll(async () => {
  pgDump = await pgTool('pg_dump')
  pgRestore = await pgTool('pg_restore')
})

test(
  'a pg_dump of a busy database, restored into a new cluster as docs/ledger.md says, is verified, closed to the application, and its runs go on',
  async () => {
    const source = await useCluster(await useScratchFolder())
    await execute(source.adminUrl, AGE)
    const database = await createMigrated(source, 'purser')
    const busy = await beBusy(await createWorld({ database }))
    const file = join(await useScratchFolder(), 'purser.dump')
    await run(pgDump, ['--format=custom', `--file=${file}`, database.adminUrl])
    await busy.abandon()

    const target = await useCluster(await useScratchFolder())
    const restored = target.database('purser')
    await execute(target.adminUrl, 'create role purser_owner login')
    await execute(target.adminUrl, 'create role purser_app login')
    await execute(target.adminUrl, 'create role purser_tenant')
    await execute(target.adminUrl, 'create database purser')
    await run(pgRestore, ['--exit-on-error', `--dbname=${restored.adminUrl}`, file])
    await migrate({ adminUrl: restored.adminUrl, ...PASSWORDS })
    expect(await isAhead(target)).toBe(false)
    await execute(restored.adminUrl, ADVANCE)
    expect(await isAhead(target)).toBe(true)
    await expectLife(restored, busy)
  },
  TIMEOUT_MS,
)

/** A cluster that has lived for a while is far ahead of a new one. */
const AGE = `
  do $$ begin
    set synchronous_commit = off;
    for counter in 1..20000 loop perform pg_current_xact_id(); commit; end loop;
  end $$`

/** As docs/operations.md has it: what is restored must not lie ahead of the new cluster's transactions. */
const ADVANCE = `
  do $$
  declare
    v_newest xid8 := (select greatest((select max(xid) from transfer), (select max(xid) from event)));
  begin
    set synchronous_commit = off;
    while pg_current_xact_id() <= v_newest loop commit; end loop;
  end $$`

async function isAhead(cluster: TestCluster): Promise<boolean> {
  const [row] = await execute(
    cluster.database('purser').adminUrl,
    `select pg_snapshot_xmin(pg_current_snapshot()) > (select max(xid) from transfer) as ahead`,
  )
  return row?.['ahead'] === true
}

async function execute(url: string, text: string): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    const { rows } = await client.query<Record<string, unknown>>(text)
    return rows
  } finally {
    await client.end()
  }
}
