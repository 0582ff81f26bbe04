//! stub
use crate::routes::Routes;
/// stub
pub fn routes(routes: Routes) -> Routes { routes }
