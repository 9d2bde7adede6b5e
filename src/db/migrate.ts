import { Kysely, PostgresDialect, sql, type RawBuilder } from 'kysely'
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
/** What the application becomes to ask for one tenant: rows of others do not exist for it (migrations/0032). */
const TENANT = 'purser_tenant'

/** Makes the roles if they are missing, and brings the database up to the newest migration as its owner. */
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
    await ensureRole(db, OWNER, login(options.ownerPassword))
    // It serves all tenants: calls, runs and chores are confined by their queries.
    await ensureRole(db, APP, sql`${login(options.appPassword)} bypassrls`)
    await ensureRole(db, TENANT, sql`nologin nobypassrls`)
    await ensureMember(db)
    const database = decodeURIComponent(new URL(options.adminUrl).pathname.slice(1))
    await sql`grant all on database ${sql.id(database)} to ${sql.id(OWNER)}`.execute(db)
    await sql`grant connect on database ${sql.id(database)} to ${sql.id(APP)}`.execute(db)
    await sql`grant all on schema public to ${sql.id(OWNER)}`.execute(db)
    await sql`grant usage on schema public to ${sql.id(APP)}, ${sql.id(TENANT)}`.execute(db)
  } finally {
    await db.destroy()
  }
}

function login(password: string): RawBuilder<unknown> {
  return sql`login password ${sql.lit(password)}`
}

/** Roles belong to the cluster: two databases migrated at once may both try to make them. */
async function ensureRole(db: Kysely<unknown>, role: string, options: RawBuilder<unknown>): Promise<void> {
  const name = sql.id(role)
  await sql`select pg_advisory_lock(hashtext(${role}))`.execute(db)
  try {
    const known = await sql`select from pg_roles where rolname = ${role}`.execute(db)
    const verb = known.rows.length > 0 ? sql`alter role` : sql`create role`
    await sql`${verb} ${name} ${options}`.execute(db)
  } finally {
    await sql`select pg_advisory_unlock(hashtext(${role}))`.execute(db)
  }
}

/** The application has nothing of the other role unless it becomes it. */
async function ensureMember(db: Kysely<unknown>): Promise<void> {
  const known = await sql`
    select from pg_auth_members
    where roleid = ${TENANT}::regrole and member = ${APP}::regrole and set_option and not inherit_option`.execute(db)
  if (known.rows.length > 0) return
  await sql`grant ${sql.id(TENANT)} to ${sql.id(APP)} with inherit false, set true`.execute(db)
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
