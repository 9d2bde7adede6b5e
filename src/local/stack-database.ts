import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { migrate, type MigratedUrls } from '#db/migrate.ts'

const DATABASE = 'purser'
const PASSWORD_BYTES = 24

/** Makes Purser's database in the stack's Postgres if it is missing, and brings it up to date. New passwords each time. */
export async function prepareDatabase(adminUrl: string): Promise<MigratedUrls> {
  const client = new pg.Client(adminUrl)
  await client.connect()
  try {
    const known = await client.query('select from pg_database where datname = $1', [DATABASE])
    if (known.rowCount === 0) await client.query(`create database ${DATABASE}`)
  } finally {
    await client.end()
  }
  const url = new URL(adminUrl)
  url.pathname = `/${DATABASE}`
  return migrate({ adminUrl: url.href, ownerPassword: makePassword(), appPassword: makePassword() })
}

function makePassword(): string {
  return randomBytes(PASSWORD_BYTES).toString('base64url')
}
