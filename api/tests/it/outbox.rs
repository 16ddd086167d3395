//! The whole way: from the request to the outbox.

use serde_json::json;

use crate::support::App;

#[tokio::test]
async fn mail_is_sent_and_can_be_looked_at() {
    let app = App::start().await;
    app.work();
    let mail = json!({
        "recipients": [{"email": "wang@example.com", "name": "王伟"}], "template_id": "notification_email", "locale": "zh",
        "template_data": {"title": "订单已发货", "message": "您好", "extra": {"订单号": "42"}},
    });
    let answer = app.post_mail(&mail).await;
    let id = answer.body["jobs"][0]["id"].as_str().unwrap().to_owned();
    let job = app.until_sent(&id).await;
    assert_eq!((&job["attempts"], &job["last_reply"]["code"]), (&json!(1), &json!(250)));
    let listed = app.get("/v1/outbox").await.body;
    assert_eq!((&listed["data"][0]["id"], &listed["data"][0]["subject"]), (&json!(id), &json!("订单已发货")));
    let kept = app.get(&format!("/v1/outbox/{id}")).await.body;
    assert_eq!((&kept["from"], &kept["to"]), (&json!("noreply@example.com"), &json!(["wang@example.com"])));
    assert!(
        kept["html"].as_str().unwrap().contains("订单号") && kept["text"].as_str().unwrap().contains("您好")
    );
    assert!(kept["source"].as_str().unwrap().contains(&format!("Message-ID: <{id}@example.com>")));
    assert!(kept["headers"].as_array().unwrap().iter().any(|header| header["name"] == "Subject"));
    assert_eq!(kept["parts"].as_array().unwrap().len(), 3, "{:?}", kept["parts"]);
}
