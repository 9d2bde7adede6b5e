import { openPool } from '#db/pool.ts'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { createEmptyDatabase } from '../support/postgres.ts'

test('a connection that the server shuts down, idle, in use or while its pool ends, ends no process', async () => {
  const database = await createEmptyDatabase()
  onTestFinished(() => database.drop())
  const admin = new pg.Client(database.adminUrl)
  await admin.connect()
  const shutDown = async (client: pg.PoolClient) => {
    const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
    return () => admin.query('select pg_terminate_backend($1)', [rows[0]?.pid])
  }
  const pool = openPool({ connectionString: database.ownerUrl, max: 2 })
  const [idle, used] = [await pool.connect(), await pool.connect()]
  const ends = [await shutDown(idle), await shutDown(used)]
  idle.release()
  for (const end of ends) await end()
  await pollUntil(async () => pool.totalCount === 1, { what: 'the idle connection to be given up' })
  await expect(used.query('select 1')).rejects.toThrow()
  used.release(true)
  const last = await pool.connect()
  const end = await shutDown(last)
  last.release()
  await Promise.all([end(), pool.end()])
  await admin.end()
})
