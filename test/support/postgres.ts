import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { inject } from 'vitest'
import type { PostgresService } from './global-setup.ts'

export interface TestDatabase {
  /** As the application's role: executes functions and reads. */
  readonly appUrl: string
  /** As the role that migrates and owns. */
  readonly ownerUrl: string
  /** As the superuser, for tests that tamper with what nobody else may touch. */
  readonly adminUrl: string
  /** Ends the connections that are left and removes the database. */
  drop(): Promise<void>
}

/** The cluster of this worker: no other that runs now uses it. */
export function postgresOfWorker(): PostgresService {
  const services = inject('postgres')
  const service = services[(Number(process.env['VITEST_POOL_ID'] ?? 1) - 1) % services.length]
  if (!service) throw new Error('the global setup started no Postgres')
  return service
}

/** A database of its own for one test or file: a clone of the migrated template, made in well under a second. */
export function createTestDatabase(): Promise<TestDatabase> {
  return createDatabase(postgresOfWorker().templateName)
}

/** A database in which nothing is migrated yet. */
export async function createEmptyDatabase(): Promise<TestDatabase> {
  const database = await createDatabase('template0')
  await runAll(database.adminUrl, [
    'grant all on schema public to purser_owner',
    'grant usage on schema public to purser_app, purser_tenant',
  ])
  return database
}

async function createDatabase(templateName: string): Promise<TestDatabase> {
  const { adminUrl, ownerPassword, appPassword } = postgresOfWorker()
  const name = `test_${randomBytes(6).toString('hex')}`
  await runAll(adminUrl, [
    `create database ${name} template ${templateName}`,
    // Rights on the database itself are not cloned with it.
    `grant all on database ${name} to purser_owner`,
    `grant connect on database ${name} to purser_app`,
  ])
  const url = (user: string, password: string) => {
    const target = new URL(adminUrl)
    Object.assign(target, { username: user, password, pathname: `/${name}` })
    return target.href
  }
  const admin = new URL(adminUrl)
  return {
    appUrl: url('purser_app', appPassword),
    ownerUrl: url('purser_owner', ownerPassword),
    adminUrl: url(admin.username, admin.password),
    drop: () => runAll(adminUrl, [`drop database if exists ${name} with (force)`]),
  }
}

async function runAll(url: string, statements: readonly string[]): Promise<void> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    for (const statement of statements) await client.query(statement)
  } finally {
    await client.end()
  }
}
