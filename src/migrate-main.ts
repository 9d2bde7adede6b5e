import { migrate } from '#db/migrate.ts'
import { loadMigrationConfig } from './config.ts'

/** Entry point of a deployment's migration: runs once before a new version of the API and the workers starts. */
await migrate(loadMigrationConfig(process.env))
process.stdout.write('The database is up to date.\n')
