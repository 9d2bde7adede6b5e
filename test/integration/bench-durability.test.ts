import pg from 'pg'
import { expect, test } from 'vitest'
import { requireDurable } from '../bench/postgres.ts'
import { createTestDatabase } from '../support/postgres.ts'

test('the bench does not run on a Postgres that may lose what it acknowledged, and says which setting it is', async () => {
  const database = await createTestDatabase()
  const admin = new pg.Client(database.adminUrl)
  await admin.connect()
  try {
    await requireDurable(database.appUrl)
    const name = new URL(database.appUrl).pathname.slice(1)
    await admin.query(`alter role purser_app in database ${name} set synchronous_commit = off`)
    await expect(requireDurable(database.appUrl)).rejects.toThrow(/synchronous_commit is off, and must be on/)
  } finally {
    await admin.end()
    await database.drop()
  }
})
