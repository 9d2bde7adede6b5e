import { Kysely, PostgresDialect, sql } from 'kysely'
import { Migrator } from 'kysely/migration'
import { migrations } from '../../migrations/index.ts'
import { openPool } from './pool.ts'

export interface MigrateOptions {
  /** URL of a superuser, naming the database to migrate. */
  readonly adminUrl: string
  readonly ownerPassword: string
  readonly appPassword: string
}

/** The roles after a migration: the owner migrates and owns, the application executes functions and reads. */
export interface MigratedUrls {
  readonly ownerUrl: string
  readonly appUrl: string
}

const OWNER = 'purser_owner'
const APP = 'purser_app'

/** Makes the two roles if they are missing, and brings the database up to the newest migration as its owner. */
export async function migrate(options: MigrateOptions): Promise<MigratedUrls> {
  const ownerUrl = withUser(options.adminUrl, OWNER, options.ownerPassword)
  await prepareRoles(options)
  const db = connect(ownerUrl)
  try {
    const { error } = await new Migrator({ db, provider: migrations }).migrateToLatest()
    if (error) throw error
  } finally {
    await db.destroy()
  }
  return { ownerUrl, appUrl: withUser(options.adminUrl, APP, options.appPassword) }
}

async function prepareRoles(options: MigrateOptions): Promise<void> {
  const db = connect(options.adminUrl)
  try {
    await ensureRole(db, OWNER, options.ownerPassword)
    await ensureRole(db, APP, options.appPassword)
    const database = decodeURIComponent(new URL(options.adminUrl).pathname.slice(1))
    await sql`grant all on database ${sql.id(database)} to ${sql.id(OWNER)}`.execute(db)
    await sql`grant connect on database ${sql.id(database)} to ${sql.id(APP)}`.execute(db)
    await sql`grant all on schema public to ${sql.id(OWNER)}`.execute(db)
    await sql`grant usage on schema public to ${sql.id(APP)}`.execute(db)
  } finally {
    await db.destroy()
  }
}

/** Roles belong to the cluster: two databases migrated at once may both try to make them. */
async function ensureRole(db: Kysely<unknown>, role: string, password: string): Promise<void> {
  const name = sql.id(role)
  await sql`select pg_advisory_lock(hashtext(${role}))`.execute(db)
  try {
    const known = await sql`select from pg_roles where rolname = ${role}`.execute(db)
    const verb = known.rows.length > 0 ? sql`alter role` : sql`create role`
    await sql`${verb} ${name} login password ${sql.lit(password)}`.execute(db)
  } finally {
    await sql`select pg_advisory_unlock(hashtext(${role}))`.execute(db)
  }
}

function connect(url: string): Kysely<unknown> {
  return new Kysely({ dialect: new PostgresDialect({ pool: openPool({ connectionString: url, max: 1 }) }) })
}

function withUser(url: string, user: string, password: string): string {
  const changed = new URL(url)
  changed.username = user
  changed.password = encodeURIComponent(password)
  return changed.toString()
}
